"""Where the files of one cluster are, and the numbers and names that its parts agree on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from concordat_devcluster.network import Network

RUNTIME = Path("/run/concordat")
"""Sockets of the node, in its private /run."""
ETCD_SOCKET = RUNTIME / "etcd.sock"
CONTAINERD_SOCKET = Path("/run/containerd/containerd.sock")
API_PORT = 6443
DNS_READY_PORT = 8181
REGISTRY_PORT = 5005
REGISTRY_HOST = "registry.concordat.internal"
"""Registry part of every image reference; containerd maps it to the node's loopback, DNS does not know it."""
CLUSTER_DOMAIN = "cluster.local"
RUNTIME_CLASS = "concordat-isolated"
ISOLATED_HANDLER = "isolated"
_FOLDERS = (
    *("config", "containerd", "etcd", "kubelet", "kubelet-plugins", "logs"),
    *("opt", "pki", "pod-logs", "registry", "volumes"),
)


@dataclass(frozen=True)
class Layout:
    """One cluster: its state folder, whose name is the cluster's, its programs and its addresses."""

    state: Path
    tools: Path
    network: Network

    @property
    def name(self) -> str:
        """Name of the cluster."""
        return self.state.name

    @property
    def node_name(self) -> str:
        """Name of its only node."""
        return f"{self.name}-node"

    @property
    def cgroup(self) -> str:
        """Name of its group at the top of every control group hierarchy."""
        return f"concordat-{self.network.slot}"

    @property
    def config(self) -> Path:
        """Folder of the configuration files, written anew at each start."""
        return self.state / "config"

    @property
    def pki(self) -> Path:
        """Folder of keys and certificates."""
        return self.state / "pki"

    @property
    def logs(self) -> Path:
        """Folder with a log of each program."""
        return self.state / "logs"

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig, for use on the host."""
        return self.state / "kubeconfig"

    @property
    def authority(self) -> Path:
        """Certificate of the cluster's authority, readable by everybody."""
        return self.state / "ca.crt"

    @property
    def containerd_config(self) -> Path:
        """Written last, when the sandbox image is in the registry: containerd waits for it."""
        return self.config / "containerd.toml"

    @property
    def volumes(self) -> Path:
        """Folder with a folder of each volume."""
        return self.state / "volumes"

    @property
    def api_url(self) -> str:
        """The API server as the host sees it."""
        return f"https://{self.network.node_address}:{API_PORT}"

    def identity_kubeconfig(self, name: str) -> Path:
        """Return the kubeconfig of one of the node's own programs."""
        return self.config / f"{name}.kubeconfig"

    def create_folders(self) -> None:
        """Make every folder that the node expects, for root only: keys, secrets and the data of volumes are there."""
        for folder in _FOLDERS:
            (self.state / folder).mkdir(parents=True, exist_ok=True)
            (self.state / folder).chmod(0o700)
