"""A federation for each test: a hub alone, or with four sites and an evaluator."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from concordat.controller import AlreadyExists, Cluster
from concordat_devcluster.control_plane import ControlPlane
from tests.fakes.api_server import FakeApiServer, FakeCluster
from tests.scenarios.faults import Flickering, FlickeringMemory, MortalCluster, MortalFake
from tests.scenarios.federation import Federation
from tests.scenarios.view import EVALUATOR


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """On the real API server each scenario runs once, with the first of its cases; in memory all of them do."""
    if not config.getoption("--real"):
        return
    seen: set[str] = set()
    for item in list(items):
        if item.path.parent != Path(__file__).parent:
            continue
        scenario = item.nodeid.partition("[")[0]
        if scenario in seen:
            items.remove(item)
            config.hook.pytest_deselected(items=[item])
        seen.add(scenario)


@pytest.fixture
async def empty(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Federation]:
    """A hub without sites."""
    if not request.config.getoption("--real"):
        server = FakeApiServer()
        yield await _hub(
            Federation(MortalFake(server), FakeCluster(server), FlickeringMemory(), "http://memory", tmp_path)
        )
        return
    crds: ControlPlane = request.getfixturevalue("crds")
    registry_url: str = request.getfixturevalue("registry_url")
    async with (
        MortalCluster(crds.kubeconfig, qps=1000, burst=1000) as cluster,
        Cluster(crds.kubeconfig, qps=1000, burst=1000) as admin,
        Flickering(registry_url) as registry,
    ):
        made = await _hub(Federation(cluster, admin, registry, registry_url, tmp_path))
        yield made
        # What the tests before left is listed by every test after.
        await made.remove()


async def _hub(made: Federation) -> Federation:
    await made.namespace(made.hub_space)
    account = {"apiVersion": "v1", "kind": "ServiceAccount"}
    with contextlib.suppress(AlreadyExists):
        await made.admin.create({**account, "metadata": {"name": "default", "namespace": made.hub_space}})
    await made.start_gateway()
    await made.start_operator()
    return made


@pytest.fixture
async def federation(empty: Federation) -> Federation:
    """Four sites and an evaluator, ready, with a first release on the channel."""
    await empty.join(EVALUATOR, role="Evaluator")
    for short in ("site-a", "site-b", "site-c", "site-d"):
        await empty.join(short)
    await empty.publish_genesis()
    await empty.settle()
    return empty
