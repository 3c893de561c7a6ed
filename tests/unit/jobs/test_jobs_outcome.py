"""How a Job ended and why it failed, as kubelet and the Job controller show it (research/registry.md §7)."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from concordat.api import Condition, Reason
from concordat.jobs import Failure, Outcome, failure, outcome
from tests.support.jobs import Make


def _condition(type_: str, **more: str) -> dict[str, str]:
    return {"type": type_, "status": "True", **more}


def _job(make: Make, kind: str = "train", **failed: str) -> dict[str, Any]:
    job: dict[str, Any] = make.served(make.jobs()[kind])
    reason = {"reason": "PodFailurePolicy", "message": "Container trainer for pod x failed with exit code 1"}
    return {**job, "status": {"conditions": [_condition("Failed", **{**reason, **failed})]}}


def _pod(
    name: str = "p", container: str = "trainer", status: dict[str, Any] | None = None, **state: Any
) -> dict[str, Any]:
    shown = {"containerStatuses": [{"name": container, "state": state}]} if state else {}
    return {"metadata": {"name": name}, "status": {**shown, **(status or {})}}


def told(cause: Failure) -> tuple[Reason, str]:
    """What is shown of a failure."""
    return cause.reason, cause.message


_EVICTED = {
    "phase": "Failed",
    "reason": "Evicted",
    "message": 'Usage of EmptyDir volume "tmp" exceeds the limit "1Gi". ',
}
_PREEMPTED = {"conditions": [_condition("DisruptionTarget", reason="PreemptionByScheduler", message="preempted")]}


@pytest.mark.parametrize(
    ("pod", "reason", "says"),
    [
        (
            _pod(terminated={"exitCode": 137, "reason": "OOMKilled"}),
            Reason.OOM_KILLED,
            "Pod p ran out of memory: its limit is 2Gi; raise budget.memory or lower recipe.batchSize.",
        ),
        (
            _pod(terminated={"exitCode": 70, "reason": "OOMKilled", "message": "bug: RuntimeError"}),
            Reason.OOM_KILLED,
            "Pod p ran out of memory, in a child process (exit code 70): its limit is 2Gi; "
            "raise budget.memory or lower recipe.batchSize.",
        ),
        (
            _pod(status=_EVICTED, terminated={"exitCode": 143}),
            Reason.EVICTED,
            'Pod p was evicted: Usage of EmptyDir volume "tmp" exceeds the limit "1Gi".',
        ),
        (
            _pod(status=_EVICTED),
            Reason.EVICTED,
            'Pod p was evicted: Usage of EmptyDir volume "tmp" exceeds the limit "1Gi".',
        ),
        (_pod(status=_PREEMPTED, terminated={"exitCode": 75}), Reason.EVICTED, "Pod p was evicted: preempted."),
        (
            _pod(terminated={"exitCode": 71, "message": "this container has a network: route 0.0.0.0/0 on eth0."}),
            Reason.NOT_ISOLATED,
            "Pod p refused to run, because it is not isolated: this container has a network: route 0.0.0.0/0 on eth0.",
        ),
        (
            _pod(terminated={"exitCode": 65, "reason": "Error", "message": "train.npz is missing\n"}),
            Reason.TRAINING_FAILED,
            "Pod p ended with exit code 65: train.npz is missing.",
        ),
        (
            _pod(terminated={"exitCode": 1}),
            Reason.TRAINING_FAILED,
            "Pod p ended with exit code 1: no message; see kubectl logs.",
        ),
        (
            _pod(terminated={"exitCode": 137, "reason": "Error"}),
            Reason.TRAINING_FAILED,
            "Pod p ended with exit code 137: killed from outside, perhaps for memory; see kubectl describe pod.",
        ),
        (
            _pod(waiting={"reason": "CreateContainerConfigError", "message": "failed to prepare subPath"}),
            Reason.TRAINING_FAILED,
            "Pod p never ran to an end (CreateContainerConfigError): failed to prepare subPath.",
        ),
        (
            _pod(status={"phase": "Failed", "reason": "NodeLost"}),
            Reason.TRAINING_FAILED,
            "Pod p never ran to an end (NodeLost): see kubectl describe pod.",
        ),
        (_pod(), Reason.TRAINING_FAILED, "Pod p never ran to an end (unknown): see kubectl describe pod."),
    ],
)
def test_why_a_pod_failed(make: Make, pod: dict[str, Any], reason: Reason, says: str) -> None:
    assert told(failure(_job(make), [pod])) == (reason, says)


def test_the_last_pod_tells(make: Make) -> None:
    first, last = _pod("p1", terminated={"exitCode": 75}), _pod("p2", terminated={"exitCode": 65, "message": "no data"})
    assert told(failure(_job(make), [first, last])) == (
        Reason.TRAINING_FAILED,
        "Pod p2 ended with exit code 65: no data.",
    )


@pytest.mark.parametrize(
    ("kind", "container", "reason"),
    [
        ("train", "trainer", Reason.TRAINING_FAILED),
        ("evaluate", "evaluator", Reason.VALIDATION_FAILED),
        ("aggregate", "aggregator", Reason.AGGREGATION_FAILED),
    ],
)
def test_each_job_fails_under_its_own_reason(make: Make, kind: str, container: str, reason: Reason) -> None:
    pods = [_pod(container=container, terminated={"exitCode": 65, "message": "x"})]
    assert told(failure(_job(make, kind), pods)) == (reason, "Pod p ended with exit code 65: x.")
    assert failure(_job(make, kind), []).reason is reason
    killed = [_pod(container=container, terminated={"exitCode": 137, "reason": "OOMKilled"})]
    assert failure(_job(make, kind), killed).reason is Reason.OOM_KILLED


def test_the_deadline_is_told_with_its_length(make: Make) -> None:
    late = {"reason": "DeadlineExceeded", "message": "Job was active longer than specified deadline"}
    reason, says = told(failure(_job(make, **late), []))
    assert reason is Reason.DEADLINE_EXCEEDED
    assert says.startswith("The Job took longer than 2400 s")
    assert "raise budget.maxWallSeconds or lower budget.maxSteps" in says
    stuck = _pod(waiting={"reason": "ImagePullBackOff", "message": "Back-off pulling image"})
    assert told(failure(_job(make, **late), [stuck])) == (
        Reason.DEADLINE_EXCEEDED,
        "The Job took longer than 2400 s and never ran: ImagePullBackOff: Back-off pulling image.",
    )
    assert "budget" not in failure(_job(make, "evaluate", **late), []).message


def test_without_pods_the_job_tells(make: Make) -> None:
    job = _job(make, reason="BackoffLimitExceeded", message="Job has reached the specified backoff limit")
    assert told(failure(job, [])) == (
        Reason.TRAINING_FAILED,
        "The Job failed, and its pods are gone, so the cause is not known "
        "(BackoffLimitExceeded: Job has reached the specified backoff limit).",
    )


@given(st.text())
def test_whatever_a_pod_says_is_one_short_line(make: Make, said: str) -> None:
    for code in (1, 71):
        message = failure(_job(make), [_pod(terminated={"exitCode": code, "message": said * 50})]).message
        assert message.isprintable()
        assert len(message) < 700


DONE = "2026-11-24T12:00:00Z"


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (None, None),
        ({}, None),
        ({"active": 1}, None),
        ({"conditions": [{"type": "Complete", "status": "False"}], "completionTime": DONE}, None),
        ({"conditions": [_condition("Complete")]}, None),
        ({"conditions": [_condition("FailureTarget", reason="x")]}, None),
        ({"conditions": [_condition("SuccessCriteriaMet")], "completionTime": DONE}, None),
        (
            {"conditions": [_condition("Complete")], "completionTime": DONE},
            Outcome(datetime(2026, 11, 24, 12, tzinfo=UTC)),
        ),
        (
            {"conditions": [_condition("Failed", reason="DeadlineExceeded", message="too long")]},
            Outcome(None, "DeadlineExceeded: too long"),
        ),
        ({"conditions": [_condition("Failed")]}, Outcome(None, "no reason given")),
        (
            {"conditions": [_condition("Complete"), _condition("Failed", reason="x")], "completionTime": DONE},
            Outcome(None, "x"),
        ),
    ],
)
def test_when_a_job_has_ended(status: dict[str, Any] | None, expected: Outcome | None) -> None:
    assert outcome({"status": status}) == expected


def test_a_job_that_does_not_exist_has_not_ended() -> None:
    assert outcome(None) is None


@pytest.mark.parametrize(
    ("pods", "final"),
    [
        ([_pod(container="aggregator", terminated={"exitCode": code})], code in (64, 65, 70, 71))
        for code in (1, 64, 65, 70, 71, 75, 128, 137, 255)
    ]
    + [
        ([], False),
        ([_pod(container="aggregator", terminated={"exitCode": 70, "reason": "OOMKilled"})], False),
        ([_pod(container="aggregator", status=_EVICTED, terminated={"exitCode": 65})], False),
        ([_pod(container="aggregator", waiting={"reason": "ImagePullBackOff"})], False),
    ],
)
def test_only_bad_input_and_bugs_are_final(make: Make, pods: list[Any], final: bool) -> None:
    """Finding 12."""
    assert failure(_job(make, "aggregate"), pods).final is final


def test_after_the_deadline_the_remembered_reason_is_named_instead_of_the_budget(make: Make) -> None:
    """Finding 14: the Job controller deletes the pods of a Job that is late, and with them why they never ran."""
    late = _job(make, reason="DeadlineExceeded", message="Job was active longer than specified deadline")
    shown = condition("Trained", "Unschedulable", "Pod p finds no node: 0/3 nodes are available.")
    assert told(failure(late, [], shown)) == (
        Reason.DEADLINE_EXCEEDED,
        "The Job took longer than 2400 s and never ran. Pod p finds no node: 0/3 nodes are available.",
    )
    assert "raise budget.maxWallSeconds" in failure(late, [], condition("Trained", "Training", "It runs.")).message


def condition(type_: str, reason: str, message: str) -> Condition:
    """One that is False."""
    at = datetime(2026, 11, 24, 12, tzinfo=UTC)
    return Condition(type=type_, status="False", reason=reason, message=message, last_transition_time=at)
