"""What every cluster has in its API from the start: rights of the node's programs, storage, the runtime class."""

from __future__ import annotations

from typing import Any

from concordat_devcluster import pki
from concordat_devcluster.layout import ISOLATED_HANDLER, RUNTIME_CLASS, STORAGE_NAMESPACE

_RBAC = "rbac.authorization.k8s.io"
_READ = ["get", "list", "watch"]
_WRITE = [*_READ, "create", "patch", "update", "delete"]
STORAGE_CLASS = "local-path"


def manifests() -> list[dict[str, Any]]:
    """The objects, for `kubectl apply`."""
    kubelet_clients = {"kind": "Group", "name": pki.API_SERVER_TO_KUBELET.groups[0], "apiGroup": _RBAC}
    return [
        _namespace(),
        _binding("concordat:kubelet-clients", "system:kubelet-api-admin", kubelet_clients),
        *_rights(
            pki.COREDNS.user,
            _rule(["endpoints", "services", "pods", "namespaces"], ["list", "watch"]),
            _rule(["endpointslices"], ["list", "watch"], "discovery.k8s.io"),
        ),
        *_rights(
            pki.PROVISIONER.user,
            _rule(["nodes", "persistentvolumeclaims", "configmaps", "pods", "pods/log"], _READ),
            _rule(["persistentvolumes"], _WRITE),
            _rule(["events"], ["create", "patch"]),
            _rule(["storageclasses"], _READ, "storage.k8s.io"),
        ),
        *_helper_pods(),
        _storage_class(),
        {
            "apiVersion": "node.k8s.io/v1",
            "kind": "RuntimeClass",
            "metadata": {"name": RUNTIME_CLASS},
            "handler": ISOLATED_HANDLER,
        },
    ]


def _namespace() -> dict[str, Any]:
    # The pods that make folders of volumes are privileged.
    labels = {"pod-security.kubernetes.io/enforce": "privileged"}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": STORAGE_NAMESPACE, "labels": labels}}


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


def _helper_pods() -> list[dict[str, Any]]:
    name = "local-path-provisioner"
    metadata = {"name": name, "namespace": STORAGE_NAMESPACE}
    scripts = {
        "setup": 'set -eu\nmkdir -m 0777 -p "$VOL_DIR"\n',
        "teardown": 'set -eu\nrm -rf "$VOL_DIR"\n',
    }
    return [
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "local-path-config", "namespace": STORAGE_NAMESPACE},
            "data": scripts,
        },
        {"apiVersion": f"{_RBAC}/v1", "kind": "Role", "metadata": metadata, "rules": [_rule(["pods"], _WRITE)]},
        {
            "apiVersion": f"{_RBAC}/v1",
            "kind": "RoleBinding",
            "metadata": metadata,
            "roleRef": {"apiGroup": _RBAC, "kind": "Role", "name": name},
            "subjects": [{"kind": "User", "name": pki.PROVISIONER.user, "apiGroup": _RBAC}],
        },
    ]


def _storage_class() -> dict[str, Any]:
    annotations = {
        "storageclass.kubernetes.io/is-default-class": "true",
        # Volumes of type hostPath ignore fsGroup.
        "defaultVolumeType": "local",
    }
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": STORAGE_CLASS, "annotations": annotations},
        "provisioner": "rancher.io/local-path",
        "volumeBindingMode": "WaitForFirstConsumer",
        "reclaimPolicy": "Delete",
    }
