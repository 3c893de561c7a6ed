"""Everything installed as helm renders it, and credentials for each party."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from concordat_devcluster.control_plane import ControlPlane
from concordat_devcluster.processes import wait_for
from tests.apiserver.rbac.world import EVALUATOR, FOREIGN, HUB, RELEASES, SITE, World, manifests
from tests.support.waiting import HANG_SECONDS


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Everything installed, and the admission policy in force."""
    folder = tmp_path_factory.mktemp("rendered")
    with ControlPlane() as control_plane:
        control_plane.apply_crds()
        made = World(control_plane)
        for namespace in (HUB, SITE, EVALUATOR, FOREIGN):
            made.kubectl("create", "namespace", namespace)
        for release in RELEASES:
            text = manifests(*release, folder)
            made.kubectl("apply", "--server-side", "--validate=strict", "-f", "-", stdin=text)
        operator = made.kubeconfig(HUB, "concordat-operator")
        # The API server learns of a new policy and of new roles within a second or so.
        probe = {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": "probe", "namespace": SITE},
            "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}},
        }
        wait_for(
            "the admission policy",
            lambda: "ValidatingAdmissionPolicy 'concordat-operator-jobs'" in made.create(operator, probe),
            HANG_SECONDS,
            lambda: True,
            control_plane.folder / "kube-apiserver.log",
        )
        yield made


@pytest.fixture(scope="session")
def operator(world: World) -> Path:
    return world.kubeconfig(HUB, "concordat-operator")


@pytest.fixture(scope="session")
def agent(world: World) -> Path:
    return world.kubeconfig(SITE, "concordat-agent")


@pytest.fixture(scope="session")
def who(world: World) -> Callable[[str], Path]:
    """Credentials by party: operator, agent, evaluator (its agent), trainer, aggregator, gateway, publisher,
    or nobody."""
    accounts = {
        "operator": (HUB, "concordat-operator"),
        "aggregator": (HUB, "concordat-aggregator"),
        "gateway": (HUB, "concordat-gateway"),
        "publisher": (HUB, "concordat-publisher"),
        "agent": (SITE, "concordat-agent"),
        "trainer": (SITE, "concordat-trainer"),
        "evaluator": (EVALUATOR, "concordat-agent"),
        "nobody": (FOREIGN, "nobody"),
    }
    return lambda party: world.kubeconfig(*accounts[party])
