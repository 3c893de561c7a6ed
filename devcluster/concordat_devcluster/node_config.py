"""The configuration files of the node's programs, as text. Reasons for unusual settings are beside them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import yaml

from concordat_devcluster import cgroups
from concordat_devcluster.layout import (
    CLUSTER_DOMAIN,
    CONTAINERD_SOCKET,
    DNS_READY_PORT,
    ISOLATED_HANDLER,
    REGISTRY_HOST,
    REGISTRY_PORT,
    Layout,
)


def render(layout: Layout) -> dict[str, str]:
    """Every configuration file but containerd's: path below the configuration folder → content."""
    return {
        "cni-pods/10-pods.conflist": _json(_cni_pods(layout)),
        "cni-isolated/10-isolated.conflist": _json(_cni_isolated(layout)),
        f"registries/{REGISTRY_HOST}/hosts.toml": toml(_hosts()),
        "kubelet.yaml": _yaml(_kubelet(layout)),
        "kube-proxy.yaml": _yaml(_kube_proxy(layout)),
        "registry.yaml": _yaml(_registry(layout)),
        "Corefile": _corefile(layout),
    }


def containerd(layout: Layout, sandbox_image: str) -> str:
    """containerd's configuration; `sandbox_image`: what holds a pod's namespaces, in the node's registry."""
    cri_images = "io.containerd.cri.v1.images"
    registries = f"{layout.config}/registries"

    def runc(cni: str) -> dict[str, Any]:
        options = {"BinaryName": f"{layout.tools}/runc", "SystemdCgroup": False}
        folder = f"{layout.config}/cni-{cni}"
        return {"runtime_type": "io.containerd.runc.v2", "cni_conf_dir": folder, "options": options}

    plugins = {
        cri_images: {
            "snapshotter": "overlayfs",
            # The registry beside it keeps the packed layers; a second copy would only fill the disk.
            "discard_unpacked_layers": True,
            "pinned_images": {"sandbox": sandbox_image},
            "registry": {"config_path": registries},
        },
        "io.containerd.cri.v1.runtime": {
            "disable_apparmor": True,
            # Lowering a score needs CAP_SYS_RESOURCE, which root in a container often lacks.
            "restrict_oom_score_adj": True,
            "cni": {"bin_dirs": [str(layout.tools)], "conf_dir": f"{layout.config}/cni-pods"},
            "containerd": {
                "default_runtime_name": "runc",
                "runtimes": {"runc": runc("pods"), ISOLATED_HANDLER: runc("isolated")},
            },
        },
        "io.containerd.transfer.v1.local": {"config_path": registries},
        "io.containerd.internal.v1.opt": {"path": f"{layout.state}/opt"},
    }
    return toml(
        {
            "version": 3,
            "root": f"{layout.state}/containerd",
            "state": str(CONTAINERD_SOCKET.parent),
            "disabled_plugins": [
                "io.containerd.internal.v1.tracing",
                "io.containerd.nri.v1.nri",
                "io.containerd.snapshotter.v1.blockfile",
                "io.containerd.tracing.processor.v1.otlp",
            ],
            "grpc": {"address": str(CONTAINERD_SOCKET)},
            "plugins": plugins,
        }
    )


def toml(table: Mapping[str, Any], path: tuple[str, ...] = ()) -> str:
    """TOML of nested mappings of texts, numbers, booleans and lists of those."""
    own = [f"{_key(key)} = {json.dumps(value)}" for key, value in table.items() if not isinstance(value, Mapping)]
    header = [f"[{'.'.join(map(_key, path))}]"] if path and own else []
    nested = [toml(value, (*path, key)) for key, value in table.items() if isinstance(value, Mapping)]
    return "".join([*(f"{line}\n" for line in header + own), *nested])


def _key(key: str) -> str:
    return json.dumps(key)


def _json(document: Mapping[str, Any]) -> str:
    return json.dumps(document, indent=2) + "\n"


def _yaml(document: Mapping[str, Any]) -> str:
    return yaml.safe_dump(dict(document), sort_keys=False)


def _cni_pods(layout: Layout) -> dict[str, Any]:
    ipam = {
        "type": "host-local",
        "ranges": [[{"subnet": str(layout.network.pods)}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    bridge = {"type": "bridge", "bridge": "pods0", "isGateway": True, "hairpinMode": True, "ipam": ipam}
    return {"cniVersion": "1.0.0", "name": "pods", "plugins": [bridge]}


def _cni_isolated(layout: Layout) -> dict[str, Any]:
    # kubelet insists on an address. This one is a single host's, the same in every such pod, on a bridge whose ports
    # do not see each other: the kernel makes no route for it. IPv6 would make its own, so it is switched off.
    ipam = {"type": "static", "addresses": [{"address": f"{layout.network.isolated[2]}/32"}]}
    bridge = {"type": "bridge", "bridge": "isolated0", "isGateway": False, "portIsolation": True, "ipam": ipam}
    tuning = {"type": "tuning", "sysctl": {"net.ipv6.conf.all.disable_ipv6": "1"}}
    return {"cniVersion": "1.0.0", "name": "isolated", "plugins": [bridge, tuning]}


def _hosts() -> dict[str, Any]:
    return {"host": {f"http://127.0.0.1:{REGISTRY_PORT}": {"capabilities": ["pull", "resolve"]}}}


def _kubelet(layout: Layout) -> dict[str, Any]:
    return {
        "kind": "KubeletConfiguration",
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": f"{layout.pki}/ca.crt"},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": f"{layout.pki}/kubelet-server.crt",
        "tlsPrivateKeyFile": f"{layout.pki}/kubelet-server.key",
        "containerRuntimeEndpoint": f"unix://{CONTAINERD_SOCKET}",
        "failCgroupV1": False,
        "failSwapOn": False,
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{layout.cgroup}/{cgroups.PODS}",
        "enforceNodeAllocatable": [],
        "clusterDomain": CLUSTER_DOMAIN,
        "clusterDNS": [layout.network.node_address],
        "resolvConf": "",
        # Without it there are no disk figures: no eviction, and no pod that asks for ephemeral-storage.
        "localStorageCapacityIsolation": True,
        "podPidsLimit": 1024,
        # The disk is the developer's: how full it is says little about this node.
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "imageGCHighThresholdPercent": 99,
        "imageGCLowThresholdPercent": 98,
        "makeIPTablesUtilChains": False,
        "volumePluginDir": f"{layout.state}/kubelet-plugins",
        "registryPullQPS": 0,
    }


def _kube_proxy(layout: Layout) -> dict[str, Any]:
    # Zeros leave the kernel's settings of connection tracking alone: they are the whole machine's.
    conntrack = {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"}
    return {
        "kind": "KubeProxyConfiguration",
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "mode": "nftables",
        "clientConnection": {"kubeconfig": str(layout.identity_kubeconfig("kube-proxy"))},
        "hostnameOverride": layout.node_name,
        "clusterCIDR": str(layout.network.pods),
        "conntrack": conntrack,
    }


def _registry(layout: Layout) -> dict[str, Any]:
    # On loopback only: it asks nobody for a password, and pods must not push.
    return {
        "version": 0.1,
        "log": {"level": "warn", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": f"{layout.state}/registry"}, "delete": {"enabled": True}},
        "http": {"addr": f"127.0.0.1:{REGISTRY_PORT}"},
    }


def _corefile(layout: Layout) -> str:
    # Names outside the cluster do not exist here, and saying so at once keeps resolvers from waiting.
    return f"""\
{CLUSTER_DOMAIN}:53 in-addr.arpa:53 {{
    bind {layout.network.node_address}
    errors
    ready {layout.network.node_address}:{DNS_READY_PORT}
    kubernetes {CLUSTER_DOMAIN} in-addr.arpa {{
        kubeconfig {layout.identity_kubeconfig("coredns")}
        ttl 5
    }}
}}
.:53 {{
    bind {layout.network.node_address}
    template ANY ANY {{
        rcode NXDOMAIN
    }}
}}
"""
