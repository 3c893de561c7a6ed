"""How a Job ended, and why it failed: read from its status and its pods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from concordat.api.conditions import NOT_STARTED_REASONS, Condition, Reason
from concordat.jobs.build import AGGREGATOR, EVALUATOR, TRAINER
from concordat.jobs.pod import EXIT_KILLED
from concordat.jobs.pod_status import condition, line

EXIT_NOT_ISOLATED = 71
FINAL_EXITS = frozenset({64, 65, 70, EXIT_NOT_ISOLATED})
"""Bad input, bad data, a bug, no isolation: another run of the same Job ends alike."""
ANSWER_PATIENCE = timedelta(minutes=3)
"""The time an agent has to answer what a Job left before the Job's end is shown without that: the answer tells
both, and at a thousand sites each write counts."""
_FAILED = {
    TRAINER: Reason.TRAINING_FAILED,
    EVALUATOR: Reason.VALIDATION_FAILED,
    AGGREGATOR: Reason.AGGREGATION_FAILED,
}


@dataclass(frozen=True)
class Outcome:
    """The end of a Job: when it completed, or why it failed."""

    completed: datetime | None
    message: str = ""


@dataclass(frozen=True)
class Failure:
    """Why a Job failed, with a sentence for people."""

    reason: Reason
    message: str
    final: bool = False
    """Whether another run of the same Job would end alike."""


def outcome(job: Mapping[str, Any] | None) -> Outcome | None:
    """Return how the Job ended; None while it does not exist or has not ended."""
    status = (job or {}).get("status") or {}
    failed = condition(status, "Failed")
    if failed is not None:
        words = [str(failed[part]) for part in ("reason", "message") if failed.get(part)]
        return Outcome(None, ": ".join(words) or "no reason given")
    if condition(status, "Complete") is not None and status.get("completionTime"):
        return Outcome(datetime.fromisoformat(status["completionTime"]))
    return None


def answers_soon(job: Mapping[str, Any] | None, now: datetime) -> float | None:
    """Return the seconds in which the agent may still answer what the Job left; None: it has had its time."""
    job_outcome = outcome(job)
    if job_outcome is None or job_outcome.completed is None:
        return None
    left = (job_outcome.completed + ANSWER_PATIENCE - now).total_seconds()
    return left if left > 0 else None


def failure(job: Mapping[str, Any], pods: Sequence[Mapping[str, Any]], shown: Condition | None = None) -> Failure:
    """Return why a Job failed, by its last pod. `pods` are the Job's, oldest first; some may be gone.

    `shown` is what was shown of the Job before: after the deadline its pods are gone, and only that still says why
    they never ran.
    """
    container = job["spec"]["template"]["spec"]["containers"][0]
    other = _FAILED.get(container["name"], Reason.TRAINING_FAILED)
    ended = condition(job.get("status") or {}, "Failed") or {}
    if ended.get("reason") == "DeadlineExceeded":
        return Failure(Reason.DEADLINE_EXCEEDED, _deadline(job, pods, shown))
    if not pods:
        words = line(f"{ended.get('reason', 'no reason given')}: {ended.get('message', '')}")
        return Failure(other, f"The Job failed, and its pods are gone, so the cause is not known ({words}).")
    return _pod_failure(pods[-1], container, other)


def _pod_failure(pod: Mapping[str, Any], container: Mapping[str, Any], other: Reason) -> Failure:
    status, name = pod.get("status") or {}, pod["metadata"]["name"]
    state = _before(status) or _state(status, container["name"])
    terminated = state.get("terminated") or {}
    code, said = terminated.get("exitCode"), line(terminated.get("message") or "")
    # With cgroup v1 only a child process may be killed: the container ends by itself, with any exit code, later.
    if terminated.get("reason") == "OOMKilled":
        return Failure(Reason.OOM_KILLED, _out_of_memory(name, container, code))
    if status.get("reason") == "Evicted" or condition(status, "DisruptionTarget") is not None:
        why = line(status.get("message") or (condition(status, "DisruptionTarget") or {}).get("message") or "")
        return Failure(Reason.EVICTED, f"Pod {name} was evicted: {why or 'no reason given'}.")
    final = code in FINAL_EXITS
    if code == EXIT_NOT_ISOLATED:
        words = f"Pod {name} refused to run, because it is not isolated: {said or 'no message'}."
        return Failure(Reason.NOT_ISOLATED, words, final)
    if code is None:
        waiting = state.get("waiting") or {}
        words = f"{waiting.get('reason') or status.get('reason') or status.get('phase') or 'unknown'}"
        said = line(waiting.get("message") or status.get("message") or "")
        return Failure(other, f"Pod {name} never ran to an end ({words}): {said or 'see kubectl describe pod'}.")
    if code == EXIT_KILLED and not said:
        said = "killed from outside, perhaps for memory; see kubectl describe pod"
    message = f"Pod {name} ended with exit code {code}: {said or 'no message; see kubectl logs'}."
    return Failure(other, message, final)


def _out_of_memory(name: str, container: Mapping[str, Any], code: Any) -> str:
    limit = ((container.get("resources") or {}).get("limits") or {}).get("memory", "unknown")
    remedy = "raise budget.memory or lower recipe.batchSize" if container["name"] == TRAINER else "give it less to do"
    how = "" if code == EXIT_KILLED else f", in a child process (exit code {code})"
    return f"Pod {name} ran out of memory{how}: its limit is {limit}; {remedy}."


def _deadline(job: Mapping[str, Any], pods: Sequence[Mapping[str, Any]], shown: Condition | None) -> str:
    spec = job["spec"]
    container = spec["template"]["spec"]["containers"][0]["name"]
    seconds = spec.get("activeDeadlineSeconds", "?")
    status = (pods[-1].get("status") or {}) if pods else {}
    waiting = _state(status, container).get("waiting") or {}
    if waiting.get("reason"):
        why = line(f"{waiting['reason']}: {waiting.get('message') or ''}")
        return f"The Job took longer than {seconds} s and never ran: {why}."
    if shown is not None and shown.reason in NOT_STARTED_REASONS:
        return f"The Job took longer than {seconds} s and never ran. {shown.message}"
    if container == TRAINER:
        return (
            f"The Job took longer than {seconds} s, with time to start and retries included: "
            "raise budget.maxWallSeconds or lower budget.maxSteps."
        )
    return f"The Job took longer than {seconds} s, with time to start and retries included."


def _state(status: Mapping[str, Any], container: str) -> Mapping[str, Any]:
    statuses = status.get("containerStatuses") or []
    found: Mapping[str, Any] = next((s for s in statuses if s.get("name") == container), {})
    state: Mapping[str, Any] = found.get("state") or {}
    return state


def _before(status: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the state of the init container that failed, if one did: then no other container ran."""
    for container in status.get("initContainerStatuses") or []:
        state: Mapping[str, Any] = container.get("state") or {}
        if (state.get("terminated") or {}).get("exitCode"):
            return state
    return None
