"""Where each site of a round stands: in, handed in, or out and why. Read from its Update and the time alone.

Once the aggregation has begun, what counts is what the aggregator was asked to judge, whatever becomes of the Updates.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from concordat.api import RETRIED_REASONS, Condition, ConditionType, Reason, Update, first_failed
from concordat.api.round_status import Counts, DroppedOut
from concordat.protocol.contract import Contract
from concordat_operator.text import until

STEPS = (
    ConditionType.CONSENTED,
    ConditionType.ATTESTATION_VALID,
    ConditionType.STAGED,
    ConditionType.TRAINED,
    ConditionType.SUBMITTED,
    ConditionType.VERIFIED,
)
"""What a site passes through; False in one of them puts it out, unless the step is still going on."""


@dataclass(frozen=True)
class Slot:
    """One site of a round."""

    site: str
    update: Update | None
    out: DroppedOut | None
    sent: bool
    """Whether the site handed in an update in time."""
    unasked: str = ""
    """Why the site could not be asked so far."""
    conditions: Mapping[str, Condition] = field(default_factory=dict)
    """The Update's, by type: looked through once, though asked for ten times in each pass over a thousand sites."""

    @property
    def submitted(self) -> bool:
        """Return whether the site handed in an update that nothing speaks against yet."""
        return self.out is None and self.sent

    @property
    def waited_for(self) -> bool:
        """Return whether the site may still submit."""
        return self.out is None and not self.sent

    @property
    def rejected(self) -> bool:
        """Return whether the hub judged the update and rejected it."""
        return self.out is not None and self.out.step == ConditionType.VERIFIED

    def has(self, condition: ConditionType) -> bool:
        """Return whether that step is done."""
        return _holds(self.conditions, condition)


def slots(
    contract: Contract,
    updates: Mapping[str, Update],
    now: datetime,
    *,
    judged: Collection[str] | None = None,
    unasked: Mapping[str, str] | None = None,
) -> tuple[Slot, ...]:
    """Return all sites of the contract, by name. `updates` are the round's, by site.

    `judged` are the sites whose updates the aggregator was given, None before that; `unasked` says of a site why it
    could not be asked.
    """
    return tuple(
        _slot(site.name, updates.get(site.name), contract, now, judged, (unasked or {}).get(site.name, ""))
        for site in contract.sites
    )


def counts(all_slots: Iterable[Slot]) -> Counts:
    """Return how many sites have reached each step."""
    known = tuple(all_slots)

    def having(condition: ConditionType) -> int:
        return sum(slot.has(condition) for slot in known)

    return Counts(
        selected=len(known),
        consented=having(ConditionType.CONSENTED),
        trained=having(ConditionType.TRAINED),
        submitted=sum(slot.sent for slot in known),
        verified=having(ConditionType.VERIFIED),
        out=sum(slot.out is not None for slot in known),
    )


def arrivals(shown: Iterable[str], all_slots: Iterable[Slot]) -> list[str]:
    """Return the sites that submitted, as the hub saw them arrive: those `shown` so far, then what is new.

    Of what is new at once, the API server's count of writes tells the order. No site can write what is shown.
    """
    sent = {slot.site: slot.update.metadata.resource_version for slot in all_slots if slot.sent and slot.update}
    known = [site for site in shown if site in sent]
    new = sorted(sent.keys() - set(known), key=lambda site: (len(sent[site] or ""), sent[site] or "", site))
    return [*known, *new]


def next_deadline(contract: Contract, all_slots: Iterable[Slot], now: datetime) -> datetime | None:
    """Return when waiting ends for somebody; None when nobody is waited for."""
    waiting = [slot for slot in all_slots if slot.waited_for]
    deadlines = [contract.submission_deadline] if waiting else []
    if any(not slot.has(ConditionType.CONSENTED) for slot in waiting):
        deadlines.append(contract.consent_deadline)
    return min((deadline for deadline in deadlines if deadline > now), default=None)


def _slot(
    site: str,
    update: Update | None,
    contract: Contract,
    now: datetime,
    judged: Collection[str] | None,
    unasked: str,
) -> Slot:
    shown = {c.type: c for c in update.status.conditions} if update is not None else {}
    if judged is None:
        out = _out(site, update, shown, contract, now, unasked)
        return Slot(site, update, out, _holds(shown, ConditionType.SUBMITTED), unasked, shown)
    if site in judged:
        return Slot(site, update, _refused(site, shown), sent=True, conditions=shown)
    out = _out(site, update, shown, contract, now, unasked) or DroppedOut(
        site=site,
        step=ConditionType.SUBMITTED.value,
        reason=Reason.TOO_LATE,
        message="What the site sent came after the aggregation had begun, and counts nowhere.",
    )
    return Slot(site, update, out, sent=False, conditions=shown)


def _holds(shown: Mapping[str, Condition], step: ConditionType) -> bool:
    return step in shown and shown[step].is_true


def _refused(site: str, shown: Mapping[str, Condition]) -> DroppedOut | None:
    verified = shown.get(ConditionType.VERIFIED)
    if verified is None or not verified.is_false:
        return None
    return DroppedOut(site=site, step=verified.type, reason=verified.reason, message=verified.message)


def _out(
    site: str,
    update: Update | None,
    shown: Mapping[str, Condition],
    contract: Contract,
    now: datetime,
    unasked: str,
) -> DroppedOut | None:
    if update is None and now >= contract.consent_deadline:
        why = unasked or "its namespace, its Update or the rights of the hub there are gone"
        return DroppedOut(
            site=site,
            step="Requested",
            reason=Reason.NOT_ALLOWED,
            message=f"The hub could not ask the site until {until(contract.consent_deadline)}: {why}."[:1024],
        )
    found = first_failed(shown, STEPS)
    if found is not None:
        return DroppedOut(site=site, step=found.type, reason=found.reason, message=found.message)
    if _holds(shown, ConditionType.SUBMITTED):
        return None
    for step, deadline in (
        (ConditionType.CONSENTED, contract.consent_deadline),
        (ConditionType.SUBMITTED, contract.submission_deadline),
    ):
        if not _holds(shown, step) and now >= deadline:
            return DroppedOut(
                site=site,
                step=step.value,
                reason=Reason.DEADLINE_EXCEEDED,
                message=f"No answer by {until(deadline)}; {_awaited(shown.values(), step)}",
            )
    return None


def _awaited(conditions: Iterable[Condition], step: ConditionType) -> str:
    """Return what the site was waited for, with what was in its way if its agent says so."""
    in_the_way = next((c for c in conditions if c.is_false and c.reason in RETRIED_REASONS), None)
    if in_the_way is None:
        return f"the site's {step} condition was awaited."
    return f"the site's {in_the_way.type} condition says {in_the_way.reason}: {in_the_way.message}"[:900]
