"""One agent and its surroundings."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from concordat.api import Release, Site, Update
from concordat.artifacts import RegistryStore
from concordat.controller import JOB, Cluster
from concordat_devcluster.control_plane import ControlPlane
from tests.apiserver.agent.world import World
from tests.support.namespaces import clear


@pytest.fixture
async def world(crds: ControlPlane, registry_url: str, tmp_path: Path) -> AsyncIterator[World]:
    async with (
        Cluster(crds.kubeconfig, qps=1000, burst=1000) as cluster,
        RegistryStore(registry_url) as registry,
    ):
        made = World(cluster, registry, tmp_path)
        yield made
        await clear(cluster, (Update, Release, Site, JOB), made.site)
