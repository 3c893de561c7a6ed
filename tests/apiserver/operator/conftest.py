"""A federation for each test: a hub alone, or with four sites and an evaluator."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from concordat.artifacts import RegistryStore
from concordat.controller import AlreadyExists, Cluster
from concordat_devcluster.control_plane import ControlPlane
from tests.apiserver.operator.faults import MortalCluster
from tests.apiserver.operator.federation import EVALUATOR, Federation


@pytest.fixture
async def empty(crds: ControlPlane, registry_url: str, tmp_path: Path) -> AsyncIterator[Federation]:
    """A hub without sites."""
    async with (
        MortalCluster(crds.kubeconfig, qps=1000, burst=1000) as cluster,
        Cluster(crds.kubeconfig, qps=1000, burst=1000) as admin,
        RegistryStore(registry_url) as registry,
    ):
        made = Federation(cluster, admin, registry, registry_url, tmp_path)
        await made.namespace(made.hub_space)
        account = {"apiVersion": "v1", "kind": "ServiceAccount"}
        with contextlib.suppress(AlreadyExists):
            await admin.create({**account, "metadata": {"name": "default", "namespace": made.hub_space}})
        await made.start_operator()
        yield made


@pytest.fixture
async def federation(empty: Federation) -> Federation:
    """Four sites and an evaluator, ready, with a first release on the channel."""
    await empty.join(EVALUATOR, role="Evaluator")
    for short in ("site-a", "site-b", "site-c", "site-d"):
        await empty.join(short)
    await empty.publish_genesis()
    await empty.settle()
    return empty
