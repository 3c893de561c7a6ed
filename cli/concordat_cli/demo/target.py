"""Where the demo runs: the embedded cluster, or one that the user has."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from concordat_cli import cluster_commands
from concordat_cli.demo import install, roster
from concordat_cli.errors import UserError
from concordat_cli.kube import Kube
from concordat_cli.progress import Steps
from concordat_devcluster import images

ISOLATED = "concordat-isolated"
"""RuntimeClass of pods without a network; the embedded cluster has it."""


@dataclass
class Target:
    """A cluster that the demo can be installed on."""

    kube: Kube
    images: dict[str, str]
    """Reference by digest of each image, as the cluster pulls it."""
    runtime_class: str
    """For training pods; empty: the cluster has none without a network."""
    fresh: bool
    """Whether nothing of the demo is installed."""
    steps: Steps
    cluster: str = ""
    """Name of the embedded cluster; empty: it is the user's own."""

    def remove(self) -> None:
        """Stop the embedded cluster and remove its state, but for the images that were pushed to it."""
        if self.cluster:
            cluster_commands.remove(self.cluster, self.steps, keep_images=True)

    def restart(self) -> None:
        """Stop the embedded cluster and start it again from its state."""
        if not self.cluster:
            raise UserError("a cluster of the user's own is not restarted from here")
        cluster_commands.stop(self.cluster, self.steps)
        cluster_commands.start(self.cluster, self.steps, with_images=False)


def embedded(steps: Steps, keep: bool, name: str = "demo") -> Target:
    """Return the embedded cluster of this name, running, with the images pushed.

    Does everything that is missing, down to the machine's prerequisites. Without `keep`, a cluster with an earlier
    demo on it is emptied, but for the images in its registry: faster than removing the demo, and nothing can hang.
    """
    found = cluster_commands.start(name, steps, with_images=True)
    kube = Kube(Path(found["kubeconfig"]), tools=Path(found["tools"]))
    fresh = not _is_installed(kube)
    if not keep and not fresh:
        cluster_commands.remove(name, steps, keep_images=True)
        again = cluster_commands.start(name, steps, with_images=False)
        # It may run with newer tools now.
        kube = Kube(Path(again["kubeconfig"]), tools=Path(again["tools"]))
        fresh = True
    return Target(kube, found["images"], ISOLATED, fresh, steps, cluster=name)


def existing(context: str, registry: str, steps: Steps, keep: bool) -> Target:
    """Return the user's own cluster, and a registry that this machine can push to and the cluster can pull from."""
    kube = Kube(context=context)
    classes = kube.run("kubectl", "get", "runtimeclass", "-o", "name").split()
    runtime_class = ISOLATED if f"runtimeclass.node.k8s.io/{ISOLATED}" in classes else ""
    with cluster_commands.told():
        pushed = images.push(steps, registry)
    fresh = not _is_installed(kube)
    if not keep and not fresh:
        with steps.step("Removing what an earlier demo left", 30):
            install.remove(kube)
        fresh = True
    return Target(kube, pushed, runtime_class, fresh, steps)


def _is_installed(kube: Kube) -> bool:
    return bool(kube.run("kubectl", "get", "namespace", roster.HUB, "--ignore-not-found", "-o", "name").strip())
