"""What all Jobs of Concordat have in common: one unprivileged container, no token, literal values, bounded resources.

The shape passes Pod Security `restricted` and the admission policy of the operator's chart.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from concordat.api.resource import Resource
from concordat.api.types import API_VERSION, LABEL_MANAGED_BY, MANAGED_BY
from concordat.jobs.quantity import value

EXIT_TRANSIENT = 75
"""EX_TEMPFAIL: the program asks to be tried again."""
EXIT_NOT_STARTED = 128
"""What containerd reports of a container that it could not start, as when the node is going down."""
EXIT_KILLED = 137
"""SIGKILL: out of memory, its own limit's or the node's; a neighbour's memory is another one on the next run."""
EXIT_UNKNOWN = 255
"""What containerd reports of a container that it lost, as when the node went down."""

_USER = 65532
_RETRIES = 2
_GRACE_SECONDS = 10
_DISK_REQUEST = "64Mi"
_CPU_REQUEST = "100m"


class JobError(ValueError):
    """The Job cannot be described. The message says what is missing, and in which object."""


@dataclass(frozen=True)
class Size:
    """What a container may use; `scratch` is what the pod may write to /tmp, which its containers share."""

    cpu: str
    memory: str
    scratch: str = "1Gi"


@dataclass(frozen=True)
class Before:
    """A container that ends before the Job's own one begins."""

    name: str
    image: str
    command: Sequence[str]
    mounts: Sequence[Mapping[str, Any]] = ()
    tmp: str = "tmp"
    """Volume that is its /tmp; the Job's own container and its like share `tmp`."""


@dataclass(frozen=True, kw_only=True)
class JobTemplate:
    """A Job with one container, and those that prepare for it."""

    name: str
    owner: Resource
    labels: Mapping[str, str]
    container: str
    image: str
    command: Sequence[str]
    service_account: str
    size: Size
    seconds: int
    kept_seconds: int
    """How long the Job stays after its end. Who needs its outcome may be away for that time."""
    runtime_class: str | None = None
    volumes: Sequence[Mapping[str, Any]] = ()
    mounts: Sequence[Mapping[str, Any]] = ()
    before: Sequence[Before] = ()
    suspend: bool = False
    """Make no pod before somebody has let the Job run: in a site its agent, which first looks at what it is."""

    def manifest(self) -> dict[str, Any]:
        """Return the Job: in its owner's namespace, and deleted with its owner."""
        all_labels = {**self.labels, LABEL_MANAGED_BY: MANAGED_BY}
        pod: dict[str, Any] = {
            "restartPolicy": "Never",
            "serviceAccountName": self.service_account,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": _GRACE_SECONDS,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": _USER,
                "runAsGroup": _USER,
                "fsGroup": _USER,
                "fsGroupChangePolicy": "OnRootMismatch",
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [_container(self.container, self.image, self.command, self.size, self.mounts)],
            "volumes": [
                *(dict(volume) for volume in self.volumes),
                {"name": "tmp", "emptyDir": {"sizeLimit": self.size.scratch}},
            ],
        }
        if self.before:
            pod["initContainers"] = [
                _container(b.name, b.image, b.command, self.size, b.mounts, tmp=b.tmp) for b in self.before
            ]
        if self.runtime_class is not None:
            pod["runtimeClassName"] = self.runtime_class
        held = {"suspend": True} if self.suspend else {}
        return {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {
                "name": self.name,
                "namespace": self.owner.metadata.namespace,
                "labels": dict(all_labels),
                "ownerReferences": [_owner(self.owner)],
            },
            "spec": {
                **held,
                "completions": 1,
                "parallelism": 1,
                "backoffLimit": _RETRIES,
                "activeDeadlineSeconds": self.seconds,
                "ttlSecondsAfterFinished": self.kept_seconds,
                # Two pods of one Job must not write the same folder at once.
                "podReplacementPolicy": "Failed",
                "podFailurePolicy": {"rules": _failure_rules(self.container)},
                "template": {"metadata": {"labels": dict(all_labels)}, "spec": pod},
            },
        }


def _container(
    name: str, image: str, command: Sequence[str], size: Size, mounts: Sequence[Mapping[str, Any]], *, tmp: str = "tmp"
) -> dict[str, Any]:
    cpu = value(size.cpu)
    # A site's Jobs are short of memory, seldom of processors: a small request lets several sites share a node.
    cpu_request = _CPU_REQUEST if cpu > value(_CPU_REQUEST) else size.cpu
    return {
        "name": name,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": list(command),
        "env": [
            {"name": "HOME", "value": "/tmp"},  # noqa: S108 - the pod's own emptyDir
            # os.cpu_count() is the node's; more threads than the limit only wait for each other.
            {"name": "OMP_NUM_THREADS", "value": str(math.ceil(cpu))},
        ],
        "resources": {
            "requests": {"cpu": cpu_request, "memory": size.memory, "ephemeral-storage": _DISK_REQUEST},
            "limits": {"cpu": size.cpu, "memory": size.memory, "ephemeral-storage": size.scratch},
        },
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [*(dict(mount) for mount in mounts), {"name": tmp, "mountPath": "/tmp"}],  # noqa: S108
    }


def _failure_rules(container: str) -> list[dict[str, Any]]:
    """First match wins. What no rule matches, exit 75, 128, 137 and 255, counts towards backoffLimit."""
    return [
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        {
            "action": "FailJob",
            "onExitCodes": {
                "containerName": container,
                "operator": "NotIn",
                "values": [EXIT_TRANSIENT, EXIT_NOT_STARTED, EXIT_KILLED, EXIT_UNKNOWN],
            },
        },
    ]


def _owner(owner: Resource) -> dict[str, Any]:
    # Without blockOwnerDeletion: setting it needs a right on the owner's finalizers, which the operator has not.
    return {
        "apiVersion": API_VERSION,
        "kind": owner.KIND.kind,
        "name": owner.metadata.name,
        "uid": owner.metadata.uid,
        "controller": True,
    }
