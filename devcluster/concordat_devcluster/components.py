"""The programs of the node, with their flags, and what each waits for."""

from __future__ import annotations

import ssl

from concordat_devcluster.layout import (
    API_PORT,
    CONTAINERD_SOCKET,
    ETCD_SOCKET,
    RUNTIME,
    Layout,
)
from concordat_devcluster.processes import answers
from concordat_devcluster.supervisor import Component


def components(layout: Layout) -> list[Component]:
    """All programs, in the order of their start."""
    ready = ApiReady(layout)
    config, tools = layout.config, layout.tools

    def run(program: str, *flags: str) -> list[str]:
        return [str(tools / program), *flags]

    def kubelet_may_start() -> bool:
        return ready() and CONTAINERD_SOCKET.exists()

    return [
        Component("etcd", run("etcd", *_etcd(layout)), stop_waits=True),
        Component("registry", run("registry", "serve", f"{config}/registry.yaml")),
        Component("kube-apiserver", run("kube-apiserver", *_api(layout)), ETCD_SOCKET.exists),
        Component(
            "containerd",
            run("containerd", "--config", str(layout.containerd_config)),
            layout.containerd_config.exists,
            stop_waits=True,
        ),
        Component("kube-controller-manager", run("kube-controller-manager", *_controllers(layout)), ready),
        Component("kube-scheduler", run("kube-scheduler", *_scheduler(layout)), ready),
        Component(
            "kubelet",
            run("kubelet", *_kubelet(layout)),
            kubelet_may_start,
            stop_waits=True,
        ),
        Component("kube-proxy", run("kube-proxy", f"--config={config}/kube-proxy.yaml"), ready),
        Component("coredns", run("coredns", "-conf", f"{config}/Corefile"), ready),
        Component("storage", run("storage", str(layout.identity_kubeconfig("storage")), str(layout.volumes)), ready),
    ]


class ApiReady:
    """Whether the API server has ever been ready; asked no further once it was."""

    def __init__(self, layout: Layout) -> None:
        self._authority = layout.authority
        self._was = False

    def __call__(self) -> bool:
        if not self._was:
            context = ssl.create_default_context(cafile=str(self._authority))
            self._was = answers(f"https://127.0.0.1:{API_PORT}/readyz", context)
        return self._was


def _etcd(layout: Layout) -> list[str]:
    # A socket in a private folder: the store has no authentication of its own. A single member never dials
    # the advertised URLs. Data is synced to disk: a cluster has to survive a power cut in the middle of a round.
    return [
        f"--data-dir={layout.state}/etcd",
        f"--listen-client-urls=unix://{ETCD_SOCKET}",
        f"--listen-peer-urls=unix://{RUNTIME}/peer.sock",
        "--advertise-client-urls=http://localhost:2379",
        "--initial-advertise-peer-urls=http://localhost:2380",
        "--initial-cluster=default=http://localhost:2380",
        "--log-level=warn",
    ]


def _api(layout: Layout) -> list[str]:
    pki = layout.pki
    return [
        f"--etcd-servers=unix://{ETCD_SOCKET}",
        "--bind-address=0.0.0.0",
        f"--advertise-address={layout.network.node_address}",
        f"--secure-port={API_PORT}",
        f"--service-cluster-ip-range={layout.network.services}",
        f"--tls-cert-file={pki}/apiserver.crt",
        f"--tls-private-key-file={pki}/apiserver.key",
        f"--client-ca-file={pki}/ca.crt",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged",
        f"--kubelet-certificate-authority={pki}/ca.crt",
        f"--kubelet-client-certificate={pki}/kubelet-client.crt",
        f"--kubelet-client-key={pki}/kubelet-client.key",
        "--kubelet-preferred-address-types=InternalIP",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={pki}/sa.key",
        f"--service-account-signing-key-file={pki}/sa.key",
        "--profiling=false",
    ]


def _controllers(layout: Layout) -> list[str]:
    return [
        f"--kubeconfig={layout.identity_kubeconfig('kube-controller-manager')}",
        f"--service-account-private-key-file={layout.pki}/sa.key",
        f"--root-ca-file={layout.pki}/ca.crt",
        f"--flex-volume-plugin-dir={layout.state}/kubelet-plugins",
        "--use-service-account-credentials",
        "--leader-elect=false",
        "--secure-port=0",
    ]


def _scheduler(layout: Layout) -> list[str]:
    kubeconfig = layout.identity_kubeconfig("kube-scheduler")
    return [f"--kubeconfig={kubeconfig}", "--leader-elect=false", "--secure-port=0"]


def _kubelet(layout: Layout) -> list[str]:
    return [
        f"--config={layout.config}/kubelet.yaml",
        f"--kubeconfig={layout.identity_kubeconfig('kubelet')}",
        f"--hostname-override={layout.node_name}",
        f"--node-ip={layout.network.node_address}",
        f"--cert-dir={layout.pki}/kubelet",
    ]
