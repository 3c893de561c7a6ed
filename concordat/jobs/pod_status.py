"""What kubelet and the scheduler say of a pod, read as data that may be anything."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_MESSAGE_LIMIT = 500
_CONTROLLER_UID = "batch.kubernetes.io/controller-uid"


def own_pods(job: Mapping[str, Any], pods: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return those of the pods that are this Job's, not an earlier one's of the same name."""
    uid = job["metadata"].get("uid")
    return [pod for pod in pods if (pod["metadata"].get("labels") or {}).get(_CONTROLLER_UID) == uid]


def ended(pod: Mapping[str, Any]) -> bool:
    """Return whether no container of the pod runs any more or will."""
    return (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")


def condition(status: Mapping[str, Any], type_: str, value: str = "True") -> Mapping[str, Any] | None:
    """Return the condition of that type, if it has that value."""
    conditions = status.get("conditions") or []
    return next((c for c in conditions if c.get("type") == type_ and c.get("status") == value), None)


def states(status: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the state of each container, those that go first first."""
    for kind in ("initContainerStatuses", "containerStatuses"):
        for container in status.get(kind) or []:
            yield container.get("state") or {}


def line(text: str) -> str:
    """Return one printable line without a final full stop, of bounded length: a pod says what it likes."""
    words = "".join(c if c.isprintable() else " " for c in text)
    return " ".join(words.split())[:_MESSAGE_LIMIT].rstrip(" .:")
