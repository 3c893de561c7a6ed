"""Why a Job that has not ended does not run."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from concordat.api import PENDING_REASONS, Reason
from concordat.jobs import look_after, own_pods, pending

START = datetime(2026, 11, 24, 12, tzinfo=UTC)
BEGUN: dict[str, Any] = {"startTime": "2026-11-24T12:00:00Z"}
NO_NODE = "0/3 nodes are available: 3 Insufficient memory."


def _job(uid: str = "u", suspend: bool = False, **status: Any) -> dict[str, Any]:
    metadata = {"name": "r1", "namespace": "site-a", "uid": uid, "creationTimestamp": "2026-11-24T12:00:00Z"}
    return {"metadata": metadata, "spec": {"suspend": suspend}, "status": status}


def _pod(
    phase: str = "Pending", waiting: str = "", text: str = "", uid: str = "u", **conditions: Any
) -> dict[str, Any]:
    shown = [{"type": type_, "status": "False", **more} for type_, more in conditions.items()]
    state = {"waiting": {"reason": waiting, "message": text}} if waiting else {}
    labels = {"batch.kubernetes.io/controller-uid": uid}
    containers = [{"name": "trainer", "state": state}] if state else []
    status = {"phase": phase, "conditions": shown, "containerStatuses": containers}
    return {"metadata": {"name": "p", "namespace": "site-a", "labels": labels}, "status": status}


@pytest.mark.parametrize(
    ("pod", "reason", "says"),
    [
        (_pod(PodScheduled={"reason": "Unschedulable", "message": NO_NODE}), Reason.UNSCHEDULABLE, NO_NODE),
        (
            _pod(PodScheduled={"reason": "Unschedulable", "message": 'persistentvolumeclaim "data" not found'}),
            Reason.VOLUME_NOT_READY,
            'persistentvolumeclaim "data" not found',
        ),
        (_pod(PodScheduled={"reason": "SchedulingGated", "message": "held"}), Reason.QUEUED, "held"),
        (_pod(waiting="ImagePullBackOff", text="Back-off pulling"), Reason.IMAGE_PULL_FAILED, "Back-off pulling"),
        (_pod(waiting="CreateContainerConfigError", text="no subPath"), Reason.POD_PENDING, "no subPath"),
        (
            _pod(waiting="ContainerCreating", PodReadyToStartContainers={}),
            Reason.VOLUME_NOT_READY,
            "kubectl describe pod/p -n site-a",
        ),
        (_pod(waiting="ContainerCreating"), Reason.POD_PENDING, "kubectl describe pod/p -n site-a"),
        (None, Reason.POD_PENDING, "quota"),
    ],
)
def test_a_pod_that_cannot_start_says_why(pod: dict[str, Any] | None, reason: Reason, says: str) -> None:
    """Finding 14."""
    found = pending(_job(**BEGUN), [pod] if pod is not None else [])
    assert found is not None
    assert found[0] is reason
    assert reason in PENDING_REASONS
    assert says in found[1]


def test_a_job_that_kubernetes_leaves_alone_says_so() -> None:
    found = pending(_job(), [])
    assert found is not None
    assert "does kube-controller-manager run?" in found[1]


def test_a_suspended_job_is_queued() -> None:
    found = pending(_job(suspend=True), [])
    assert found is not None
    assert found[0] is Reason.QUEUED


@pytest.mark.parametrize("phase", ["Running", "Succeeded", "Failed"])
def test_a_pod_that_ran_is_not_pending(phase: str) -> None:
    assert pending(_job(), [_pod(phase)]) is None


def test_a_pod_whose_first_container_runs_is_not_pending() -> None:
    pod = _pod(waiting="PodInitializing")
    pod["status"]["initContainerStatuses"] = [{"name": "prepare", "state": {"running": {}}}]
    assert pending(_job(), [pod]) is None


@pytest.mark.parametrize(
    ("job", "seconds", "expected"),
    [
        (_job(**BEGUN), 0, 30),
        (_job(**BEGUN), 12, 18),
        (_job(**BEGUN), 31, 0),
        (_job(ready=1, **BEGUN), 31, None),
        (_job(startTime="2026-11-24T12:01:00Z"), 61, 29),
        (_job(suspend=True), 31, 149),
        (_job(suspend=True, **BEGUN), 181, 0),
        (_job(), 31, 149),
        (_job(), 181, 0),
    ],
)
def test_a_job_is_looked_at_when_its_pod_takes_long(job: dict[str, Any], seconds: int, expected: int | None) -> None:
    """Finding 14: without an event. While Kubernetes has not begun with it there is nothing to see."""
    after = look_after(job, START + timedelta(seconds=seconds))
    assert after == (None if expected is None else timedelta(seconds=expected))


def test_the_pods_of_an_earlier_job_of_that_name_do_not_count() -> None:
    assert own_pods(_job(), [_pod(uid="before"), mine := _pod()]) == [mine]
