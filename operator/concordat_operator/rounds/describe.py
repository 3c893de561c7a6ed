"""A round's status: the facts as conditions, counters and one sentence for a tired operator."""

from __future__ import annotations

from datetime import datetime

from concordat.api import PENDING_REASONS, ConditionSet, ConditionType, FederationRound, Reason, find
from concordat.api.round_status import ContractStatus, FederationRoundStatus
from concordat.api.rules import PreAggregation
from concordat.api.types import NameRef
from concordat.protocol.contract import Contract
from concordat_operator.rounds.plan import Observed, collected, held, over
from concordat_operator.rounds.select import Finding, Selection
from concordat_operator.rounds.slots import counts, next_deadline
from concordat_operator.text import count, names, until

CONDITIONS = (
    ConditionType.READY,
    ConditionType.SUCCEEDED,
    ConditionType.SUSPENDED,
    ConditionType.RECONCILING,
    ConditionType.STALLED,
    ConditionType.SITES_SELECTED,
    ConditionType.CONTRACT_SIGNED,
    ConditionType.UPDATES_COLLECTED,
    ConditionType.AGGREGATED,
    ConditionType.POISONING_ALERT,
    ConditionType.EVALUATED,
    ConditionType.RELEASED,
)
_MOST_DROPPED = 20
# Not PENDING_REASONS: something is wrong, but it heals without anybody's help, so the round is not stalled.
_PASSING = frozenset({Reason.REGISTRY_UNAVAILABLE})


def describe(seen: Observed, contract: ContractStatus | None, now: datetime) -> FederationRoundStatus:
    """The status of what is observed; `contract` names the signed contract."""
    round_ = seen.round
    conditions = ConditionSet(round_.status.conditions, round_.metadata.generation, now)
    _selected(conditions, seen)
    _signed(conditions, seen, contract)
    _collected(conditions, seen, now)
    _aggregated(conditions, seen)
    _evaluated(conditions, seen)
    phase = _summary(conditions, seen, now)
    gone = [slot.out for slot in seen.slots if slot.out is not None]
    return FederationRoundStatus(
        observed_generation=round_.metadata.generation,
        conditions=conditions.list(),
        phase=phase,
        summary=_progress(seen),
        contract=contract,
        counts=counts(seen.slots) if seen.slots else None,
        dropped_sites=gone[:_MOST_DROPPED],
        aggregate=seen.aggregate,
        release=NameRef(name=seen.release.metadata.name) if seen.release is not None else None,
        evaluation=seen.release.status.evaluation if seen.release is not None else None,
    )


def stalled(round_: FederationRound, why: Finding, now: datetime) -> FederationRoundStatus:
    """The status as it was, but for what stands in the way: for when nothing else can be observed."""
    conditions = ConditionSet(round_.status.conditions, round_.metadata.generation, now)
    conditions.drop(ConditionType.RECONCILING)
    for type_, holds in ((ConditionType.STALLED, True), (ConditionType.READY, False)):
        conditions.set(type_, holds, why.reason, why.message)
    known = {name: getattr(round_.status, name) for name in FederationRoundStatus.model_fields}
    return FederationRoundStatus(**{**known, "conditions": conditions.list(), "phase": "Stalled"})


def _selected(conditions: ConditionSet, seen: Observed) -> None:
    if seen.contract is not None:
        chosen = [site.name for site in seen.contract.sites]
        conditions.set(
            ConditionType.SITES_SELECTED,
            True,
            Reason.SELECTED,
            f"{count(len(chosen), 'site')} selected: {names(chosen)}.",
        )
    elif isinstance(seen.selection, Finding):
        conditions.set(ConditionType.SITES_SELECTED, False, seen.selection.reason, seen.selection.message)
    else:
        conditions.set(
            ConditionType.SITES_SELECTED, None, Reason.WAITING, "The sites are chosen when the contract is made."
        )


def _signed(conditions: ConditionSet, seen: Observed, contract: ContractStatus | None) -> None:
    if contract is not None:
        at = until(contract.contracted_time)
        conditions.set(
            ConditionType.CONTRACT_SIGNED, True, Reason.SIGNED, f"Contract {contract.sha256} was signed at {at}."
        )
    elif seen.problem is not None:
        conditions.set(ConditionType.CONTRACT_SIGNED, False, seen.problem.reason, seen.problem.message)
    else:
        conditions.set(
            ConditionType.CONTRACT_SIGNED, None, Reason.WAITING, "The contract follows the selection of sites."
        )


def _collected(conditions: ConditionSet, seen: Observed, now: datetime) -> None:
    if seen.contract is None:
        conditions.set(
            ConditionType.UPDATES_COLLECTED, None, Reason.WAITING, "Sites are asked once the contract is signed."
        )
        return
    ended = over(seen)
    if not collected(seen):
        conditions.set(ConditionType.UPDATES_COLLECTED, False, Reason.IN_PROGRESS, waiting(seen, seen.contract, now))
    elif ended is not None and seen.job is None and seen.aggregate is None:
        conditions.set(ConditionType.UPDATES_COLLECTED, False, ended.reason, ended.message)
    else:
        total, handed_in = len(seen.slots), sum(slot.has(ConditionType.SUBMITTED) for slot in seen.slots)
        conditions.set(
            ConditionType.UPDATES_COLLECTED,
            True,
            Reason.COLLECTED,
            f"{handed_in} of {total} sites submitted an update.",
        )


def waiting(seen: Observed, contract: Contract, now: datetime) -> str:
    """Who is waited for, and until when."""
    done = sum(slot.submitted for slot in seen.slots)
    awaited = [slot.site for slot in seen.slots if slot.waited_for]
    deadline = next_deadline(contract, seen.slots, now)
    limit = f" until {until(deadline)}" if deadline is not None else ""
    gone = [slot.site for slot in seen.slots if slot.out is not None]
    out = f"; out: {names(gone)}" if gone else ""
    return f"{done} of {len(seen.slots)} updates submitted; waiting for {names(awaited)}{limit}{out}."


def _aggregated(conditions: ConditionSet, seen: Observed) -> None:
    made = seen.aggregate
    if made is not None and made.quarantined:
        alarm = f"Quarantined: {names(made.quarantined)}. See the Updates' verdicts, and on the Sites what ends it."
        conditions.set(ConditionType.POISONING_ALERT, True, Reason.POISONING_ALERT, alarm)
    if made is not None and (waits := held(seen)) is not None:
        conditions.set(ConditionType.AGGREGATED, False, Reason.HELD_FOR_APPROVAL, waits)
    elif made is not None and made.adapter is not None and seen.contract is not None:
        policy = seen.contract.aggregation
        before = "" if policy.pre_aggregation is PreAggregation.NONE else f"{policy.pre_aggregation.value} and "
        rejected = [slot.site for slot in seen.slots if slot.rejected]
        out = f"; rejected: {names(rejected)}" if rejected else ""
        verified = f"{seen.verified} of {len(seen.slots)} updates verified"
        left = max(policy.max_faulty_sites - made.rejected, 0)
        text = f"{verified} and combined by {before}{policy.rule.value} against {count(left, 'more fault')}{out}."
        conditions.set(ConditionType.AGGREGATED, True, Reason.AGGREGATED, text)
    elif made is not None:
        conditions.set(ConditionType.AGGREGATED, False, Reason(made.reason), f"{made.message}.")
    elif seen.job is not None and seen.problem is not None:
        conditions.set(ConditionType.AGGREGATED, False, seen.problem.reason, seen.problem.message)
    elif seen.job is not None:
        conditions.set(
            ConditionType.AGGREGATED, False, Reason.IN_PROGRESS, "The aggregator Job judges and combines the updates."
        )
    else:
        conditions.set(
            ConditionType.AGGREGATED, None, Reason.WAITING, "Updates are aggregated once they are collected."
        )


def _evaluated(conditions: ConditionSet, seen: Observed) -> None:
    found = find(seen.release.status.conditions, ConditionType.APPROVED) if seen.release is not None else None
    if found is None:
        conditions.set(
            ConditionType.EVALUATED, None, Reason.WAITING, "The evaluator judges the candidate once there is one."
        )
        conditions.set(
            ConditionType.RELEASED, None, Reason.WAITING, "A candidate is released once the evaluator approved it."
        )
        return
    judged = None if found.reason in PENDING_REASONS else found.is_true
    conditions.set(ConditionType.EVALUATED, judged, Reason(found.reason), found.message)
    if found.is_true and seen.release is not None:
        conditions.set(ConditionType.RELEASED, True, Reason.RELEASED, f"{seen.release.metadata.name} is released.")
    elif judged is False:
        conditions.set(ConditionType.RELEASED, False, Reason.NOT_APPROVED, "The candidate is not released.")


def _summary(conditions: ConditionSet, seen: Observed, now: datetime) -> str:
    """Ready and its kin; returns the phase, for printing."""
    for passing in (ConditionType.SUSPENDED, ConditionType.RECONCILING, ConditionType.STALLED):
        conditions.drop(passing)
    ended = over(seen)
    if ended is not None:
        good = ended.reason is Reason.RELEASED
        conditions.set(ConditionType.SUCCEEDED, good, ended.reason, ended.message)
        conditions.set(ConditionType.READY, good, ended.reason, ended.message)
        if not good:
            conditions.set(ConditionType.STALLED, True, ended.reason, ended.message)
        return "Succeeded" if good else "Failed"
    hindrance = seen.problem or (seen.selection if isinstance(seen.selection, Finding) else None)
    phase, message = _doing(seen, now)
    conditions.set(ConditionType.SUCCEEDED, None, Reason.IN_PROGRESS, message)
    if seen.round.spec.suspend:
        paused = f"spec.suspend is true; nothing new is started. {message}"
        conditions.set(ConditionType.SUSPENDED, True, Reason.SUSPENDED, paused)
        conditions.set(ConditionType.READY, False, Reason.SUSPENDED, paused)
        return "Suspended"
    if (waits := held(seen)) is not None:
        conditions.set(ConditionType.STALLED, True, Reason.HELD_FOR_APPROVAL, waits)
        conditions.set(ConditionType.READY, False, Reason.HELD_FOR_APPROVAL, waits)
        return "Held"
    if hindrance is not None and hindrance.reason not in _PASSING:
        conditions.set(ConditionType.STALLED, True, hindrance.reason, hindrance.message)
        conditions.set(ConditionType.READY, False, hindrance.reason, hindrance.message)
        return "Stalled"
    if hindrance is not None:
        message = hindrance.message
    conditions.set(ConditionType.RECONCILING, True, Reason.IN_PROGRESS, message)
    conditions.set(
        ConditionType.READY, False, hindrance.reason if hindrance is not None else Reason.IN_PROGRESS, message
    )
    return phase


def _doing(seen: Observed, now: datetime) -> tuple[str, str]:
    """What is going on: one word, and one sentence."""
    if seen.contract is None:
        chosen = isinstance(seen.selection, Selection)
        return "Selecting", "The contract is being signed." if chosen else "Sites are being selected."
    if not collected(seen):
        return "Training", waiting(seen, seen.contract, now)
    if seen.aggregate is None:
        return "Aggregating", "The updates are being verified and aggregated."
    if (waits := held(seen)) is not None:
        return "Held", waits
    name = seen.release.metadata.name if seen.release is not None else "the candidate"
    return "Evaluating", f"The evaluator is judging {name}."


def _progress(seen: Observed) -> str | None:
    if not seen.slots:
        return None
    if seen.aggregate is not None:
        return f"{seen.verified}/{len(seen.slots)} verified"
    return f"{sum(slot.has(ConditionType.SUBMITTED) for slot in seen.slots)}/{len(seen.slots)} submitted"
