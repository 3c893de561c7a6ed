"""A round's status: the facts as conditions, counters and one sentence for a tired operator."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from concordat.api import ConditionSet, ConditionType, FederationRound, Reason, find
from concordat.api.aggregation_rules import UNPROTECTED, PreAggregation
from concordat.api.round_status import ContractStatus, FederationRoundStatus
from concordat.api.types import NameRef
from concordat.protocol.contract import Contract
from concordat.screening.strikes import LASTS
from concordat_operator.finding import Finding
from concordat_operator.rounds.plan import ObservedRound, collected, held, over
from concordat_operator.rounds.select import Selection
from concordat_operator.rounds.slots import arrivals, counts, next_deadline
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


def describe(observed: ObservedRound, contract: ContractStatus | None, now: datetime) -> FederationRoundStatus:
    """Return the status of what is observed; `contract` names the signed contract."""
    round_ = observed.round
    conditions = ConditionSet(round_.status.conditions, round_.metadata.generation, now)
    _selected(conditions, observed)
    _signed(conditions, observed, contract)
    _collected(conditions, observed, now)
    _aggregated(conditions, observed)
    _evaluated(conditions, observed)
    phase = _summary(conditions, observed, now)
    gone = [slot.out for slot in observed.slots if slot.out is not None]
    return FederationRoundStatus(
        observed_generation=round_.metadata.generation,
        conditions=conditions.list(),
        phase=phase,
        summary=_progress(observed),
        contract=contract,
        extension=observed.extension,
        counts=counts(observed.slots) if observed.slots else None,
        # Until the aggregator is asked: from then on its request says so.
        arrivals=arrivals(round_.status.arrivals, observed.slots) if observed.aggregation is None else [],
        dropped_sites=gone[:_MOST_DROPPED],
        aggregation=observed.aggregation,
        aggregate=observed.aggregate,
        release=NameRef(name=observed.release.metadata.name) if observed.release is not None else None,
        evaluation=observed.release.status.evaluation if observed.release is not None else None,
    )


def stalled(round_: FederationRound, why: Finding, now: datetime, *, over: bool) -> FederationRoundStatus:
    """Return the status as it was, but for what stands in the way: for when nothing else can be observed.

    `over` says whether that is how the round ends.
    """
    conditions = ConditionSet(round_.status.conditions, round_.metadata.generation, now)
    conditions.drop(ConditionType.RECONCILING)
    said = [(ConditionType.STALLED, True), (ConditionType.READY, False)]
    for type_, holds in [*said, (ConditionType.SUCCEEDED, False)] if over else said:
        conditions.set(type_, holds, why.reason, why.message)
    return _as_it_was(round_, conditions=conditions.list(), phase="Failed" if over else "Stalled")


def settled(round_: FederationRound, now: datetime) -> FederationRoundStatus:
    """Return the status of a round that has ended and was edited since: nothing of its end changes."""
    conditions = ConditionSet(round_.status.conditions, round_.metadata.generation, now)
    return _as_it_was(round_, conditions=conditions.renewed(), observed_generation=round_.metadata.generation)


def deleting(round_: FederationRound, why: Finding, now: datetime) -> FederationRoundStatus:
    """Return the status of a round that is being deleted: as it was, but for what the deletion waits for."""
    conditions = ConditionSet(round_.status.conditions, round_.metadata.generation, now)
    conditions.drop(ConditionType.STALLED)
    conditions.set(ConditionType.READY, False, why.reason, why.message)
    conditions.set(ConditionType.RECONCILING, True, why.reason, why.message)
    known = {"observed_generation": round_.metadata.generation, "conditions": conditions.list(), "phase": "Deleting"}
    return _as_it_was(round_, **known)


def _as_it_was(round_: FederationRound, **changed: Any) -> FederationRoundStatus:
    known = {name: getattr(round_.status, name) for name in FederationRoundStatus.model_fields}
    return FederationRoundStatus(**{**known, **changed})


def _selected(conditions: ConditionSet, observed: ObservedRound) -> None:
    if observed.contract is not None:
        chosen = [site.name for site in observed.contract.sites]
        said = f"{count(len(chosen), 'site')} selected: {names(chosen)}.{_weak(observed.contract, len(chosen))}"
        conditions.set(ConditionType.SITES_SELECTED, True, Reason.SELECTED, said)
    elif isinstance(observed.selection, Finding):
        conditions.set(ConditionType.SITES_SELECTED, False, observed.selection.reason, observed.selection.message)
    else:
        conditions.set(
            ConditionType.SITES_SELECTED, None, Reason.WAITING, "The sites are chosen when the contract is aggregate."
        )


def _weak(contract: Contract, sites: int) -> str:
    """Return a warning where so many of the sites may be faulty that a rule can promise little."""
    faulty, rule = contract.aggregation.max_faulty_sites, contract.aggregation.rule
    if rule in UNPROTECTED or not 2 * faulty < sites < 4 * faulty:
        return ""
    return (
        f" maxFaultySites {faulty} is more than a quarter of them: if all submit, faulty sites may move the result by "
        f"about f/(n - 2f) = {faulty / (sites - 2 * faulty):.1f} times what honest ones differ by."
    )


def _signed(conditions: ConditionSet, observed: ObservedRound, contract: ContractStatus | None) -> None:
    if contract is not None:
        at = until(contract.contracted_time)
        conditions.set(
            ConditionType.CONTRACT_SIGNED, True, Reason.SIGNED, f"Contract {contract.sha256} was signed at {at}."
        )
    elif observed.problem is not None:
        conditions.set(ConditionType.CONTRACT_SIGNED, False, observed.problem.reason, observed.problem.message)
    else:
        conditions.set(
            ConditionType.CONTRACT_SIGNED, None, Reason.WAITING, "The contract follows the selection of sites."
        )


def _collected(conditions: ConditionSet, observed: ObservedRound, now: datetime) -> None:
    if observed.contract is None:
        conditions.set(
            ConditionType.UPDATES_COLLECTED, None, Reason.WAITING, "Sites are asked once the contract is signed."
        )
        return
    conclusion = over(observed)
    if not collected(observed):
        conditions.set(
            ConditionType.UPDATES_COLLECTED, False, Reason.IN_PROGRESS, waiting(observed, observed.contract, now)
        )
    elif conclusion is not None and observed.aggregation is None and observed.aggregate is None:
        conditions.set(ConditionType.UPDATES_COLLECTED, False, conclusion.reason, conclusion.message)
    else:
        total, handed_in = len(observed.slots), sum(slot.sent for slot in observed.slots)
        conditions.set(
            ConditionType.UPDATES_COLLECTED,
            True,
            Reason.COLLECTED,
            f"{handed_in} of {total} sites submitted an update.",
        )


def waiting(observed: ObservedRound, contract: Contract, now: datetime) -> str:
    """Return who is waited for, and until when."""
    done = sum(slot.submitted for slot in observed.slots)
    awaited = [slot.site for slot in observed.slots if slot.waited_for]
    deadline = next_deadline(contract, observed.slots, now)
    limit = f" until {until(deadline)}" if deadline is not None else ""
    gone = [slot.site for slot in observed.slots if slot.out is not None]
    out = f"; out: {names(gone)}" if gone else ""
    unasked = [slot for slot in observed.slots if slot.unasked and slot.out is None]
    more = f" {unasked[0].site} could not be asked: {unasked[0].unasked}." if unasked else ""
    if len(unasked) > 1:
        more += f" So it is with {names(slot.site for slot in unasked[1:])}."
    return f"{done} of {len(observed.slots)} updates submitted; waiting for {names(awaited)}{limit}{out}.{more}"


def _aggregated(conditions: ConditionSet, observed: ObservedRound) -> None:
    aggregate = observed.aggregate
    if aggregate is not None and aggregate.suspected:
        alarm = (
            f"Suspected of poisoning: {names(aggregate.suspected)}; the Updates' verdicts say why. The second time "
            f"within {LASTS.days} days, a site is quarantined."
        )
        conditions.set(ConditionType.POISONING_ALERT, True, Reason.POISONING_ALERT, alarm)
    if aggregate is not None and (waits := held(observed)) is not None:
        conditions.set(ConditionType.AGGREGATED, False, Reason.HELD_FOR_APPROVAL, waits)
    elif aggregate is not None and aggregate.adapter is not None and observed.contract is not None:
        policy = observed.contract.aggregation
        before = "" if policy.pre_aggregation is PreAggregation.NONE else f"{policy.pre_aggregation.value} and "
        rejected = [slot.site for slot in observed.slots if slot.rejected]
        out = f"; rejected: {names(rejected)}" if rejected else ""
        verified = f"{observed.verified} of {len(observed.slots)} updates verified"
        left = max(policy.max_faulty_sites - aggregate.rejected, 0)
        text = f"{verified} and combined by {before}{policy.rule.value} against {count(left, 'more fault')}{out}."
        conditions.set(ConditionType.AGGREGATED, True, Reason.AGGREGATED, text)
    elif aggregate is not None:
        conditions.set(ConditionType.AGGREGATED, False, aggregate.reason, f"{aggregate.message}.")
    elif observed.aggregation is not None and (obstacle := observed.problem or over(observed) or observed.waits):
        conditions.set(ConditionType.AGGREGATED, False, obstacle.reason, obstacle.message)
    elif observed.aggregation is not None and observed.aggregation.run > 1 and _failed_before(conditions):
        pass  # It runs again, and is still shown why.
    elif observed.aggregation is not None:
        conditions.set(
            ConditionType.AGGREGATED, False, Reason.IN_PROGRESS, "The aggregator Job judges and combines the updates."
        )
    else:
        conditions.set(
            ConditionType.AGGREGATED, None, Reason.WAITING, "Updates are aggregated once they are collected."
        )


def _failed_before(conditions: ConditionSet) -> bool:
    shown = conditions.get(ConditionType.AGGREGATED)
    return shown is not None and shown.is_false and not shown.is_pending


def _evaluated(conditions: ConditionSet, observed: ObservedRound) -> None:
    approved = (
        find(observed.release.status.conditions, ConditionType.APPROVED) if observed.release is not None else None
    )
    if approved is None:
        conditions.set(
            ConditionType.EVALUATED, None, Reason.WAITING, "The evaluator judges the candidate once there is one."
        )
        conditions.set(
            ConditionType.RELEASED, None, Reason.WAITING, "A candidate is released once the evaluator approved it."
        )
        return
    refused = approved.is_false and not approved.is_pending
    judged = approved.is_true or (False if refused else None)
    conditions.set(ConditionType.EVALUATED, judged, approved.reason, approved.message)
    if approved.is_true and observed.release is not None:
        conditions.set(ConditionType.RELEASED, True, Reason.RELEASED, f"{observed.release.metadata.name} is released.")
    elif refused:
        conditions.set(ConditionType.RELEASED, False, Reason.NOT_APPROVED, "The candidate is not released.")


def _summary(conditions: ConditionSet, observed: ObservedRound, now: datetime) -> str:
    """Set Ready and its kin; return the phase, for printing."""
    for passing in (ConditionType.SUSPENDED, ConditionType.RECONCILING, ConditionType.STALLED):
        conditions.drop(passing)
    conclusion = over(observed)
    if conclusion is not None:
        good = conclusion.reason == Reason.RELEASED
        conditions.set(ConditionType.SUCCEEDED, good, conclusion.reason, conclusion.message)
        conditions.set(ConditionType.READY, good, conclusion.reason, conclusion.message)
        if not good:
            conditions.set(ConditionType.STALLED, True, conclusion.reason, conclusion.message)
        return "Succeeded" if good else "Failed"
    hindrance = observed.problem or (observed.selection if isinstance(observed.selection, Finding) else None)
    phase, message = _doing(observed, now)
    conditions.set(ConditionType.SUCCEEDED, None, Reason.IN_PROGRESS, message)
    if observed.round.spec.suspend:
        paused = f"spec.suspend is true; nothing new is started. {_goes_on(observed, now)}{message}"
        conditions.set(ConditionType.SUSPENDED, True, Reason.SUSPENDED, paused)
        conditions.set(ConditionType.READY, False, Reason.SUSPENDED, paused)
        return "Suspended"
    if (waits := held(observed)) is not None:
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


def _goes_on(observed: ObservedRound, now: datetime) -> str:
    """Say which deadline fails a suspended round: they are signed, and go on."""
    deadline = next_deadline(observed.contract, observed.slots, now) if observed.contract is not None else None
    if deadline is None or collected(observed):
        return ""
    return (
        f"The deadlines go on: whoever has not answered by {until(deadline)} is out, and below the quorum the round "
        "fails; spec.extendDeadlines gives more time. "
    )


def _doing(observed: ObservedRound, now: datetime) -> tuple[str, str]:
    """Return what is going on: one word, and one sentence."""
    if observed.contract is None:
        chosen = isinstance(observed.selection, Selection)
        return "Selecting", "The contract is being signed." if chosen else "Sites are being selected."
    if not collected(observed):
        return "Training", waiting(observed, observed.contract, now)
    if observed.aggregate is None:
        return "Aggregating", "The updates are being verified and aggregated."
    if (waits := held(observed)) is not None:
        return "Held", waits
    name = observed.release.metadata.name if observed.release is not None else "the candidate"
    return "Evaluating", f"The evaluator is judging {name}."


def _progress(observed: ObservedRound) -> str | None:
    if not observed.slots:
        return None
    if observed.aggregate is not None:
        return f"{observed.verified}/{len(observed.slots)} verified"
    return f"{sum(slot.sent for slot in observed.slots)}/{len(observed.slots)} submitted"
