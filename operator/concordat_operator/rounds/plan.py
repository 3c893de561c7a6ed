"""A round, from selection to release: which step is due. This is the table of contents.

select → contract → request → (the sites consent, train and submit: `update`, `slots`) → aggregate → judge → propose a
release → (the evaluator judges it: `release`) → the end. `describe` shows the same facts as conditions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from concordat.api import ConditionType, FederationRound, Reason, Release, find, is_true
from concordat.api.round import FederationRoundSpec
from concordat.api.round_status import AggregateStatus, AggregationStatus, ExtensionStatus
from concordat.api.types import FINALIZER
from concordat.jobs import PATIENCE, look_after, outcome
from concordat.protocol.contract import Contract
from concordat_operator.finding import Finding
from concordat_operator.rounds.select import Selection
from concordat_operator.rounds.slots import Slot, next_deadline
from concordat_operator.text import count, names, until

REQUEUE_SECONDS = 30.0
AGGREGATION_SECONDS = 7200
"""For the aggregator Job with its retries, and for its result to be confirmed."""
NO_CHAMPION_TOUCHED = "No champion was touched."


class Step(StrEnum):
    """The operator's next step. Each step can be repeated after a crash without doing anything twice."""

    REST = "rest"
    """Wait for a site, a Job, the evaluator, a person or a deadline."""
    FINALIZE = "finalize"
    """Make sure that deleting the round cleans up, before anything is made."""
    CLEAN_UP = "clean-up"
    """The round is being deleted: remove what it made."""
    CONTRACT = "contract"
    """Freeze the spec and the selected sites into a signed contract."""
    REQUEST = "request"
    """Create the Updates that are missing."""
    AGGREGATE = "aggregate"
    """Fix what the aggregator is asked to judge: what was submitted."""
    LAUNCH = "launch"
    """Start the aggregator Job on that."""
    RESTART = "restart"
    """The aggregator Job failed: run it again, or give up."""
    JUDGE = "judge"
    """Confirm the aggregator's report; sign verdicts, closure and aggregation; show the verdicts on the Updates."""
    PROPOSE = "propose"
    """Create the candidate Release."""


@dataclass(frozen=True)
class ObservedRound:
    """All that a decision about a round depends on, apart from the time."""

    round: FederationRound
    selection: Selection | Finding | None = None
    """Before the contract: what it would be made of, or why it cannot be made."""
    contract: Contract | None = None
    """The signed contract, with the deadlines that hold now; None before it."""
    extension: ExtensionStatus | None = None
    """The later deadlines that were signed; the contract above has them."""
    slots: tuple[Slot, ...] = ()
    """Each site of the contract."""
    aggregation: AggregationStatus | None = None
    """What the aggregator is asked, and the run of its Job; None before that is fixed."""
    retry_at: datetime | None = None
    """When the aggregator's next run may start; None: now."""
    job: Mapping[str, Any] | None = None
    """The Job of that run."""
    waits: Finding | None = None
    """Why the aggregator Job does not run, or is run again."""
    aggregate: AggregateStatus | None = None
    """The result of the aggregator, once the operator has confirmed and signed it."""
    release: Release | None = None
    """The candidate Release."""
    newer: Release | None = None
    """A release of the federation that was approved since the contract, and that this round does not build on."""
    expired: datetime | None = None
    """When the time of all steps together was over; None before it is."""
    problem: Finding | None = None
    """The obstacle that the last step met; it is tried again."""

    @property
    def agreed(self) -> Contract:
        """Return the contract, for steps that are due only after it. Raises ValueError, a bug, before it."""
        if self.contract is None:
            raise ValueError("there is no contract yet")
        return self.contract

    @property
    def verified(self) -> int:
        """Return how many updates passed verification."""
        return self.aggregate.verified if self.aggregate is not None else 0


def next_step(observed: ObservedRound) -> Step:
    """Return the step that is due."""
    round_, metadata = observed.round, observed.round.metadata
    if metadata.deletion_timestamp is not None:
        return Step.CLEAN_UP if FINALIZER in metadata.finalizers else Step.REST
    if over(observed) is not None or round_.spec.suspend:
        return Step.REST
    if FINALIZER not in metadata.finalizers:
        return Step.FINALIZE
    if observed.contract is None:
        return Step.CONTRACT if isinstance(observed.selection, Selection) else Step.REST
    if observed.aggregate is None:
        return _collect(observed)
    return Step.PROPOSE if observed.release is None and held(observed) is None else Step.REST


def held(observed: ObservedRound) -> str | None:
    """Return why the candidate is not proposed until somebody approves it; None: it is."""
    aggregate = observed.aggregate
    if aggregate is None or aggregate.reason != Reason.HELD_FOR_APPROVAL or aggregate.adapter is None:
        return None
    if observed.round.spec.approve_held or observed.release is not None:
        return None
    return f"{aggregate.message} Set spec.approveHeld to true to propose the candidate nevertheless."


def expires(spec: FederationRoundSpec, contracted: datetime) -> datetime:
    """Return when every step of a round has had all the time there is for it; what stands in its way then ends it."""
    later = spec.extend_deadlines.submission_seconds if spec.extend_deadlines is not None else None
    submission = max(spec.deadlines.submission_seconds, later or 0)
    return contracted + timedelta(seconds=submission + AGGREGATION_SECONDS + spec.deadlines.evaluation_seconds)


def over(observed: ObservedRound) -> Finding | None:
    """Return why the round has ended, or None while it goes on; the reason is RELEASED if it ended well."""
    succeeded = find(observed.round.status.conditions, ConditionType.SUCCEEDED)
    if succeeded is not None and (succeeded.is_true or succeeded.is_false):
        return Finding(succeeded.reason, succeeded.message)
    if observed.contract is None:
        return None
    problem = observed.problem
    if problem is not None and problem.reason == Reason.AGGREGATION_FAILED:
        return Finding(Reason.AGGREGATION_FAILED, f"{problem.message} {NO_CHAMPION_TOUCHED}")
    if problem is not None and observed.expired is not None:
        return Finding(
            problem.reason,
            f"{problem.message} This was not put right by {until(observed.expired)}. {NO_CHAMPION_TOUCHED}",
        )
    if observed.newer is not None and (observed.release is None or not approved(observed.release)):
        return Finding(
            Reason.PARENT_SUPERSEDED,
            f"Release {observed.newer.metadata.name} was approved meanwhile, and this round does not build on it. "
            f"{NO_CHAMPION_TOUCHED}",
        )
    if observed.aggregate is None:
        return _uncollectable(observed, observed.contract)
    if observed.aggregate.adapter is None:
        return _unaggregated(observed, observed.aggregate)
    return _judged(observed.release) if observed.release is not None else None


def wake(observed: ObservedRound, now: datetime) -> float | None:
    """Return the seconds until the round has to be looked at again though nothing happens; None: never."""
    if observed.round.metadata.deletion_timestamp is not None or over(observed) is not None:
        return None
    if observed.problem is not None or isinstance(observed.selection, Finding):
        return REQUEUE_SECONDS
    if observed.contract is None or observed.aggregate is not None:
        return None
    if observed.aggregation is not None:
        return _wake_for_job(observed, now)
    if any(slot.update is None and slot.out is None for slot in observed.slots):
        return REQUEUE_SECONDS
    deadline = next_deadline(observed.contract, observed.slots, now)
    return None if deadline is None else (deadline - now).total_seconds()


def _wake_for_job(observed: ObservedRound, now: datetime) -> float | None:
    if observed.job is not None and outcome(observed.job) is None:
        look = look_after(observed.job, now)
        return None if look is None else (look or PATIENCE).total_seconds()
    return REQUEUE_SECONDS if observed.retry_at is None else (observed.retry_at - now).total_seconds()


def collected(observed: ObservedRound) -> bool:
    """Return whether nobody is waited for any more."""
    return observed.contract is not None and (
        observed.aggregation is not None or not any(slot.waited_for for slot in observed.slots)
    )


def _collect(observed: ObservedRound) -> Step:
    if observed.aggregation is not None:
        if observed.job is None:
            return Step.LAUNCH if observed.retry_at is None else Step.REST
        ended = outcome(observed.job)
        if ended is None:
            return Step.REST
        return Step.JUDGE if ended.completed is not None else Step.RESTART
    if any(slot.update is None and slot.out is None for slot in observed.slots):
        return Step.REQUEST
    return Step.AGGREGATE if collected(observed) else Step.REST


def _uncollectable(observed: ObservedRound, contract: Contract) -> Finding | None:
    """Return why there can be no aggregate, because too few sites are left; None while there can."""
    if observed.aggregation is not None:
        return None
    left = [slot.site for slot in observed.slots if slot.out is None]
    if len(left) >= contract.quorum:
        return None
    who = f" ({names(left)})" if left else ""
    return Finding(
        Reason.QUORUM_NOT_REACHED,
        f"{len(left)} of {count(len(observed.slots), 'site')} left{who}, quorum is {contract.quorum}: "
        f"{_losses(observed)}. {NO_CHAMPION_TOUCHED}",
    )


def _unaggregated(observed: ObservedRound, aggregate: AggregateStatus) -> Finding:
    """Return why the aggregator made no candidate."""
    losses = _losses(observed)
    return Finding(
        aggregate.reason, f"{aggregate.message}{f': {losses}' if losses else ''}. {NO_CHAMPION_TOUCHED}"[:1024]
    )


def _judged(release: Release) -> Finding | None:
    decision = find(release.status.conditions, ConditionType.APPROVED)
    if decision is None:
        return None
    if decision.is_true:
        return Finding(Reason.RELEASED, f"Release {release.metadata.name} is approved. {decision.message}")
    if decision.is_false and not decision.is_pending:
        known = (Reason.EVALUATION_DEADLINE_EXCEEDED, Reason.NO_EVALUATOR, Reason.PARENT_SUPERSEDED)
        reason = next((r for r in known if r == decision.reason), Reason.NOT_APPROVED)
        return Finding(reason, f"{decision.message} {NO_CHAMPION_TOUCHED}")
    return None


def _losses(observed: ObservedRound) -> str:
    gone = [slot.out for slot in observed.slots if slot.out is not None]
    more = f" and {len(gone) - 20} more" if len(gone) > 20 else ""
    return ", ".join(f"{out.site} ({out.step}: {out.reason})" for out in gone[:20]) + more


def approved(release: Release) -> bool:
    """Return whether a release was approved, or is the start of a federation."""
    return is_true(release.status.conditions, ConditionType.APPROVED)


def ancestor(release: Release, releases: Iterable[Release]) -> Release | None:
    """Return the release whose adapter this one was developed from; None if there is none any more."""
    spec = release.spec
    found = [
        other
        for other in releases
        if other.spec.federation == spec.federation
        and other.spec.sequence < spec.sequence
        and spec.parent is not None
        and other.spec.adapter.digest == spec.parent.digest
    ]
    return max(found, key=lambda other: (other.spec.sequence, other.metadata.name), default=None)
