"""Embedded clusters: start, look at, stop and remove them. Needs root, except for looking.

What survives `down` is in `<cache>/clusters/<name>`; what runs is one process tree in namespaces of its own.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from concordat_devcluster import images, launch, network, records
from concordat_devcluster.errors import DevclusterError
from concordat_devcluster.layout import REGISTRY_HOST, REGISTRY_PORT, Layout
from concordat_devcluster.network import Network
from concordat_devcluster.progress import Progress, Silent, step
from concordat_devcluster.records import State
from concordat_devcluster.tools import ensure_tools, locked

_OF_IMAGES = ("cluster.json", "pki", "registry", "containerd")


@dataclass(frozen=True)
class EmbeddedCluster:
    """A running cluster."""

    name: str
    kubeconfig: Path
    """Of an administrator."""
    tools: Path
    """Folder with kubectl, helm and the rest."""
    pid: int
    """Process 1 of the node, as the host counts: for nsenter."""
    address: str
    """The node's, reachable from this machine only."""
    registry_host: str = REGISTRY_HOST
    """Start of the image references that the node can pull."""
    registry_address: str = f"127.0.0.1:{REGISTRY_PORT}"
    """Where images are pushed to, inside the node's network namespace."""


@dataclass(frozen=True)
class Status:
    """A cluster, whatever it is doing."""

    name: str
    state: State
    answers: bool
    """Whether its API server says that it is ready."""
    cluster: EmbeddedCluster | None
    """None unless it runs."""


def up(name: str, progress: Progress | None = None) -> EmbeddedCluster:
    """Start a cluster, or find it running: its node is Ready, DNS answers, volumes can be had.

    Builds what is missing. After `down`, a crash or a reboot the cluster goes on with what it had.
    """
    progress = progress or Silent()
    state = records.state_folder(name)
    with _exclusively(name):
        run = records.read_run(state)
        if run is not None and run.ready and launch.is_alive(run):
            return _running(state)
        tools = ensure_tools(progress)
        images.build(progress, names=("pause",))
        layout = Layout(state, tools, Network(_slot(state)))
        _clean(layout)
        with (
            step(progress, f"cluster {name}: starting", 15),
            _undone_on_failure(lambda: launch.end(layout, records.read_run(state))),
        ):
            launch.start(layout, _push_pause, progress.note)
        return _running(state)


def status(name: str) -> Status:
    """Return how a cluster is doing; a name that was never up is `absent`."""
    state = records.state_folder(name)
    known = records.state_of(state)
    if known is not State.RUNNING:
        return Status(name, known, answers=False, cluster=None)
    cluster = _running(state)
    layout = Layout(state, cluster.tools, Network(records.read_slot(state) or 0))
    return Status(name, known, launch.api_answers(layout), cluster)


def list_all() -> list[Status]:
    """Every cluster that has state."""
    return [status(name) for name in records.names()]


def down(name: str) -> bool:
    """Stop a cluster in order and leave nothing of it but its state; False: it did not run."""
    state = records.state_folder(name)
    with _exclusively(name):
        slot = records.read_slot(state)
        run = records.read_run(state)
        if slot is None or run is None:
            return False
        launch.end(Layout(state, Path(run.tools), Network(slot)), run)
        return True


def reset(name: str, keep_images: bool = False) -> bool:
    """Stop a cluster and remove its state: objects, volumes, images. False: there was none.

    keep_images: keep the images that were pushed and pulled, so that the next `up` starts empty but fast.
    """
    down(name)
    state = records.state_folder(name)
    with _exclusively(name):
        if not state.exists():
            return False
        if not keep_images:
            shutil.rmtree(state)
            return True
        for entry in state.iterdir():
            if entry.name not in _OF_IMAGES:
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        return True


@contextmanager
def _exclusively(name: str) -> Iterator[None]:
    if os.geteuid():
        raise DevclusterError("clusters need namespaces, mounts and control groups: run this as root")
    with locked(records.root() / f"{name}.lock"):
        yield


@contextmanager
def _undone_on_failure(undo: Callable[[], object]) -> Iterator[None]:
    try:
        yield
    except BaseException as failure:
        try:
            undo()
        except DevclusterError as left:
            told = str(failure) or type(failure).__name__
            raise DevclusterError(f"{told}\nThen stopping it failed as well: {left}") from failure
        raise


def _running(state: Path) -> EmbeddedCluster:
    run, slot = records.read_run(state), records.read_slot(state)
    if run is None or slot is None:
        raise DevclusterError(f"cluster {state.name} has just been stopped by somebody else")
    layout = Layout(state, Path(run.tools), Network(slot))
    return EmbeddedCluster(state.name, layout.kubeconfig, layout.tools, run.pid, layout.network.node_address)


def _push_pause(pid: int) -> str:
    return images.push(Silent(), REGISTRY_HOST, node_pid=pid, names=("pause",))["pause"]


def _slot(state: Path) -> int:
    slot = records.read_slot(state)
    if slot is None:
        with locked(records.root() / "slots.lock"):
            others = {records.read_slot(records.state_folder(name)) for name in records.names()}
            slot = network.free_slot({other for other in others if other is not None})
            records.write_slot(state, slot)
    return slot


def _clean(layout: Layout) -> None:
    left = records.read_run(layout.state)
    if left is not None:
        launch.end(layout, left)
    elif network.is_connected(layout.network):
        raise DevclusterError(
            f"the link {layout.network.host_link} of this cluster is there although it does not run: a cluster in "
            f"another user's cache uses its addresses. Stop that one, or give up this one's state: reset"
        )
