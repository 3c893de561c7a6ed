"""What every cluster has in its API from the start: rights of the node's programs, storage, the runtime class."""

from __future__ import annotations

from typing import Any

from concordat_devcluster import pki
from concordat_devcluster.layout import ISOLATED_HANDLER, RUNTIME_CLASS

_RBAC = "rbac.authorization.k8s.io"
_READ = ["get", "list", "watch"]
_WRITE = [*_READ, "create", "patch", "update", "delete"]
STORAGE_CLASS = "standard"
PROVISIONER = "concordat.dev/folders"
"""As in programs/storage/main.go."""


def manifests() -> list[dict[str, Any]]:
    """Return the objects, for `kubectl apply`."""
    kubelet_clients = {"kind": "Group", "name": pki.API_SERVER_TO_KUBELET.groups[0], "apiGroup": _RBAC}
    return [
        _binding("concordat:kubelet-clients", "system:kubelet-api-admin", kubelet_clients),
        *_rights(
            pki.COREDNS.user,
            _rule(["endpoints", "services", "pods", "namespaces"], ["list", "watch"]),
            _rule(["endpointslices"], ["list", "watch"], "discovery.k8s.io"),
        ),
        *_rights(
            pki.STORAGE.user,
            _rule(["nodes", "persistentvolumeclaims"], _READ),
            _rule(["persistentvolumes"], _WRITE),
            _rule(["events"], ["create", "patch"]),
            _rule(["storageclasses"], _READ, "storage.k8s.io"),
        ),
        _storage_class(),
        {
            "apiVersion": "node.k8s.io/v1",
            "kind": "RuntimeClass",
            "metadata": {"name": RUNTIME_CLASS},
            "handler": ISOLATED_HANDLER,
        },
    ]


def _rule(resources: list[str], verbs: list[str], group: str = "") -> dict[str, Any]:
    return {"apiGroups": [group], "resources": resources, "verbs": verbs}


def _rights(user: str, *rules: dict[str, Any]) -> list[dict[str, Any]]:
    role = {"apiVersion": f"{_RBAC}/v1", "kind": "ClusterRole", "metadata": {"name": user}, "rules": list(rules)}
    return [role, _binding(user, user, {"kind": "User", "name": user, "apiGroup": _RBAC})]


def _binding(name: str, role: str, subject: dict[str, str]) -> dict[str, Any]:
    return {
        "apiVersion": f"{_RBAC}/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": name},
        "roleRef": {"apiGroup": _RBAC, "kind": "ClusterRole", "name": role},
        "subjects": [subject],
    }


def _storage_class() -> dict[str, Any]:
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": STORAGE_CLASS, "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
        "provisioner": PROVISIONER,
        "volumeBindingMode": "WaitForFirstConsumer",
        "reclaimPolicy": "Delete",
    }
