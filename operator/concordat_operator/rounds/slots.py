"""Where each site of a round stands: in, handed in, or out and why. Read from its Update and the time alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from concordat.api import ConditionType, Reason, Update, find, is_true
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

    @property
    def submitted(self) -> bool:
        """Return whether the site handed in an update that nothing speaks against yet."""
        return self.out is None and self.has(ConditionType.SUBMITTED)

    @property
    def waited_for(self) -> bool:
        """Return whether the site may still submit."""
        return self.out is None and not self.has(ConditionType.SUBMITTED)

    @property
    def rejected(self) -> bool:
        """Return whether the hub judged the update and rejected it."""
        return self.out is not None and self.out.step == ConditionType.VERIFIED

    def has(self, condition: ConditionType) -> bool:
        """Return whether that step is done."""
        return self.update is not None and is_true(self.update.status.conditions, condition)


def slots(contract: Contract, updates: Mapping[str, Update], now: datetime) -> tuple[Slot, ...]:
    """Return all sites of the contract, by name. `updates` are the round's, by site."""
    return tuple(
        Slot(site.name, update := updates.get(site.name), _out(site.name, update, contract, now))
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
        submitted=having(ConditionType.SUBMITTED),
        verified=having(ConditionType.VERIFIED),
        out=sum(slot.out is not None for slot in known),
    )


def next_deadline(contract: Contract, all_slots: Iterable[Slot], now: datetime) -> datetime | None:
    """Return when waiting ends for somebody; None when nobody is waited for."""
    waiting = [slot for slot in all_slots if slot.waited_for]
    deadlines = [contract.submission_deadline] if waiting else []
    if any(not slot.has(ConditionType.CONSENTED) for slot in waiting):
        deadlines.append(contract.consent_deadline)
    return min((deadline for deadline in deadlines if deadline > now), default=None)


def _out(site: str, update: Update | None, contract: Contract, now: datetime) -> DroppedOut | None:
    conditions = update.status.conditions if update is not None else []
    failed = [c for step in STEPS if (c := find(conditions, step)) is not None and c.is_false]
    for condition in failed:
        if not condition.is_pending:
            return DroppedOut(site=site, step=condition.type, reason=condition.reason, message=condition.message)
    if is_true(conditions, ConditionType.SUBMITTED):
        return None
    for step, deadline in (
        (ConditionType.CONSENTED, contract.consent_deadline),
        (ConditionType.SUBMITTED, contract.submission_deadline),
    ):
        if not is_true(conditions, step) and now >= deadline:
            return DroppedOut(
                site=site,
                step=step.value,
                reason=Reason.DEADLINE_EXCEEDED,
                message=f"No answer by {until(deadline)}; the site's {step} condition was awaited.",
            )
    return None
