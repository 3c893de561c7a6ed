"""`concordat demo --context`: what it asks of a cluster of the user's own, and what it removes there."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from typing import Any

import pytest
from rich.console import Console

from concordat_cli.demo import target
from concordat_cli.errors import UserError
from concordat_cli.kube import Kube
from concordat_cli.progress import Steps

REGISTRY = "localhost:5001"
PUSHED = {"operator": f"{REGISTRY}/operator@sha256:" + "1" * 64}


class Cluster:
    """Answers kubectl, and notes what is done to it."""

    def __init__(self, classes: str, installed: bool) -> None:
        self.classes, self.installed = classes, installed
        self.asked: list[list[str]] = []
        self.pushed_to: list[str] = []
        self.removed = 0

    def run(self, command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        self.asked.append(command)
        words = " ".join(command)
        out = self.classes if "get runtimeclass" in words else "namespace/concordat\n" if self.installed else ""
        return subprocess.CompletedProcess(command, 0, out, "")

    def push(self, progress: Any, registry: str) -> dict[str, str]:
        self.pushed_to.append(registry)
        return PUSHED

    def remove(self, kube: Kube) -> None:
        assert kube.context == "mine"
        self.removed += 1


Make = Callable[..., Cluster]


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Make:
    """Puts such a cluster in the place of kubectl, the image builder and the demo's removal."""

    def made(classes: str = "", installed: bool = False) -> Cluster:
        cluster = Cluster(classes, installed)
        monkeypatch.setattr("concordat_cli.kube.subprocess.run", cluster.run)
        monkeypatch.setattr("concordat_cli.demo.target.images.push", cluster.push)
        monkeypatch.setattr("concordat_cli.demo.target.install.remove", cluster.remove)
        return cluster

    return made


def existing(keep: bool = False) -> target.Target:
    """The target that `--context mine --registry localhost:5001` leads to."""
    return target.existing("mine", REGISTRY, Steps(Console(quiet=True)), keep)


def test_the_context_is_asked_and_the_images_go_to_the_registry(make: Make) -> None:
    cluster = make()
    found = existing()
    assert cluster.asked
    assert all(command[:3] == ["kubectl", "--context", "mine"] for command in cluster.asked)
    assert cluster.pushed_to == [REGISTRY]
    assert (found.images, found.kube.context, found.cluster) == (PUSHED, "mine", "")


def test_helm_names_the_context_otherwise(make: Make) -> None:
    cluster = make()
    Kube(context="mine").run("helm", "list")
    assert cluster.asked == [["helm", "--kube-context", "mine", "list"]]


@pytest.mark.parametrize(
    ("classes", "used"),
    [
        ("runtimeclass.node.k8s.io/concordat-isolated\n", "concordat-isolated"),
        ("runtimeclass.node.k8s.io/gvisor\nruntimeclass.node.k8s.io/concordat-isolated-2\n", ""),
        ("", ""),
    ],
)
def test_training_pods_get_the_isolating_runtime_class_only_where_there_is_one(
    make: Make, classes: str, used: str
) -> None:
    make(classes)
    assert existing().runtime_class == used


@pytest.mark.parametrize(
    ("installed", "keep", "fresh", "removed"),
    [(False, False, True, 0), (False, True, True, 0), (True, False, True, 1), (True, True, False, 0)],
)
def test_an_earlier_demo_is_removed_unless_it_is_kept(
    make: Make, installed: bool, keep: bool, fresh: bool, removed: int
) -> None:
    cluster = make(installed=installed)
    assert existing(keep).fresh is fresh
    assert cluster.removed == removed


def test_a_cluster_of_the_users_own_is_neither_stopped_nor_restarted(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    make()
    found = existing()
    monkeypatch.setattr("concordat_cli.demo.target.cluster_commands.remove", pytest.fail)
    found.remove()
    with pytest.raises(UserError, match="not restarted from here"):
        found.restart()


def test_what_kubectl_says_of_a_context_that_is_not_there_is_the_error(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    make()
    refused = subprocess.CompletedProcess([], 1, "", 'error: context "mine" does not exist')
    monkeypatch.setattr("concordat_cli.kube.subprocess.run", lambda *_, **__: refused)
    with pytest.raises(UserError, match='context "mine" does not exist'):
        existing()
