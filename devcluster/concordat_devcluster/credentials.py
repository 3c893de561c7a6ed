"""The certificates and kubeconfigs of a cluster, made anew at each start by an authority that stays."""

from __future__ import annotations

import os
import shutil
from datetime import datetime
from pathlib import Path

from concordat_devcluster import pki
from concordat_devcluster.layout import API_PORT, CLUSTER_DOMAIN, Layout


def issue(layout: Layout, now: datetime) -> None:
    """Write everything that a program or a person needs to be known to the cluster."""
    address = layout.network.node_address
    authority = pki.Authority.load_or_create(layout.pki, f"concordat-{layout.name}", now)
    shutil.copyfile(layout.pki / "ca.crt", layout.authority)
    api_names = ["kubernetes", "kubernetes.default", "kubernetes.default.svc"]
    api_names += [f"kubernetes.default.svc.{CLUSTER_DOMAIN}", "localhost", "127.0.0.1"]
    authority.server([*api_names, address, layout.network.api_service_address], now).write(layout.pki, "apiserver")
    authority.server([layout.node_name, address], now).write(layout.pki, "kubelet-server")
    authority.client(pki.API_SERVER_TO_KUBELET, now).write(layout.pki, "kubelet-client")
    authority.client(pki.ADMIN, now).write(layout.pki, "admin")
    pki.write_service_account_key(layout.pki / "sa.key")
    identities = {
        "kube-controller-manager": pki.CONTROLLER_MANAGER,
        "kube-scheduler": pki.SCHEDULER,
        "kube-proxy": pki.KUBE_PROXY,
        "kubelet": pki.kubelet(layout.node_name),
        "coredns": pki.COREDNS,
        "storage": pki.STORAGE,
    }

    def write_kubeconfig(path: Path, server: str, identity: pki.Identity) -> None:
        text = pki.kubeconfig(server, authority.pair.certificate, authority.client(identity, now))
        pki.write_private(path, text.encode())

    for name, identity in identities.items():
        write_kubeconfig(layout.identity_kubeconfig(name), f"https://127.0.0.1:{API_PORT}", identity)
    write_kubeconfig(layout.kubeconfig, layout.api_url, pki.ADMIN)
    if user := os.environ.get("SUDO_UID"):
        os.chown(layout.kubeconfig, int(user), -1)
