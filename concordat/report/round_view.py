"""A round as rows, one per site. Pure: objects in, rows out; round_table.py prints them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from concordat.api import Condition, ConditionType, FederationRound, Reason, Release, Site, Update, find, first_failed
from concordat.api.types import LABEL_ROUND_UID

STEPS = (
    ConditionType.CONSENTED,
    ConditionType.ATTESTATION_VALID,
    ConditionType.TRAINED,
    ConditionType.SUBMITTED,
    ConditionType.VERIFIED,
)
ROUND_STEPS = (
    ConditionType.SITES_SELECTED,
    ConditionType.CONTRACT_SIGNED,
    ConditionType.UPDATES_COLLECTED,
    ConditionType.AGGREGATED,
    ConditionType.EVALUATED,
    ConditionType.RELEASED,
)


@dataclass(frozen=True)
class SiteRow:
    """One site's part in one round."""

    site: str
    steps: dict[str, str]
    """Step to True, False, Unknown or '' where nothing is known yet."""
    examples: int | None
    norm: str | None
    measurements: dict[str, str]
    """What screening measured of the update."""
    verdict: str
    local_before_ppm: int | None
    local_after_ppm: int | None
    validation_examples: int | None
    """Those of the site's own that both were measured on; known once the site has decided."""
    decision: str
    message: str
    tier: str = ""
    """How far what was found of the site can be believed; '' before the verdict, or where its grant does not hold."""
    grant: str = ""
    """Id of the grant that the update was sent with."""


@dataclass(frozen=True)
class RoundView:
    """A round and its sites."""

    name: str
    phase: str
    steps: dict[str, str]
    sites: tuple[SiteRow, ...]
    ready: str
    reason: str
    message: str
    release: str | None
    evaluation: dict[str, int] | None

    def as_json(self) -> dict[str, Any]:
        """Return the view for `--output json`."""
        return asdict(self)

    @property
    def finished(self) -> bool:
        """Return whether the round has reached its end, good or bad."""
        return self.reason == Reason.RELEASED or self.steps.get(ConditionType.SUCCEEDED) in {"True", "False"}


def _status(conditions: list[Condition], type_: ConditionType) -> str:
    condition = find(conditions, type_)
    if condition is None:
        return ""
    return "Unknown" if condition.is_pending else condition.status.value


def _answer(copy: Release) -> Condition | None:
    """Return how the site's copy ended; None while it is open."""
    conditions = copy.status.conditions
    adopted, staged, validated = (
        find(conditions, type_) for type_ in (ConditionType.ADOPTED, ConditionType.STAGED, ConditionType.VALIDATED)
    )
    if adopted is not None:
        return adopted
    if staged is not None and staged.is_false:
        return staged
    return validated if validated is not None and validated.reason == Reason.JOB_NOT_ALLOWED else None


def _decision(copy: Release | None) -> str:
    if copy is None:
        return ""
    answer = _answer(copy)
    if answer is None:
        return "pending"
    return "adopted" if answer.is_true else f"rejected: {answer.reason}"


def _row(update: Update, copy: Release | None) -> SiteRow:
    conditions = update.status.conditions
    first_bad = first_failed({c.type: c for c in conditions}, STEPS)
    verified = find(conditions, ConditionType.VERIFIED)
    submission = update.status.submission
    decision = copy.status.decision if copy is not None else None
    answer = _answer(copy) if copy is not None else None
    attested = update.status.verdict.attestation if update.status.verdict else None
    message = first_bad.message if first_bad else (answer.message if answer and answer.is_false else "")
    return SiteRow(
        site=update.spec.site,
        steps={t: _status(conditions, t) for t in STEPS},
        examples=submission.examples if submission else None,
        norm=(update.status.verdict.norm if update.status.verdict else None)
        or (submission.norm if submission else None),
        measurements=update.status.verdict.measurements if update.status.verdict else {},
        verdict=verified.reason if verified else (first_bad.reason if first_bad else ""),
        local_before_ppm=decision.evaluation.parent_ppm
        if decision
        else (submission.parent_ppm if submission else None),
        local_after_ppm=decision.evaluation.candidate_ppm if decision else None,
        validation_examples=decision.evaluation.examples if decision else None,
        decision=_decision(copy),
        message=message,
        tier=attested.tier.value if attested is not None else "",
        grant=attested.grant if attested is not None else "",
    )


def view(round_: FederationRound, updates: list[Update], releases: list[Release], sites: list[Site]) -> RoundView:
    """Return the round as it is now. `releases` may hold every release of the cluster; only this round's count."""
    uid = round_.metadata.uid
    mine = [u for u in updates if u.metadata.labels.get(LABEL_ROUND_UID) == uid or u.spec.round_ref.uid == uid]
    known = {s.metadata.name for s in sites}
    name = round_.status.release.name if round_.status.release else None
    copies = {
        r.metadata.namespace: r
        for r in releases
        if r.metadata.name == name and r.metadata.namespace in known and r.metadata.namespace
    }
    conditions = round_.status.conditions
    ready = find(conditions, ConditionType.READY)
    return RoundView(
        name=round_.metadata.name,
        phase=round_.status.phase or "",
        steps={t: _status(conditions, t) for t in (*ROUND_STEPS, ConditionType.SUCCEEDED)},
        sites=tuple(_row(u, copies.get(u.metadata.namespace)) for u in sorted(mine, key=lambda u: u.spec.site)),
        ready=ready.status.value if ready else "Unknown",
        reason=ready.reason if ready else "",
        message=ready.message if ready else "",
        release=name,
        evaluation=round_.status.evaluation.wire() if round_.status.evaluation else None,
    )


def percent(ppm: int | None) -> str:
    """Return parts per million as a percentage with one decimal, or a dash."""
    return "–" if ppm is None else f"{ppm / 10_000:.1f} %"


def own_quality(row: SiteRow) -> str:
    """Return the right answers on the site's own validation data before and after the round: 66 → 68 of 84.

    Counts, because a percentage hides how little one example is; a percentage while their number is not known yet.
    """
    before, after, examples = row.local_before_ppm, row.local_after_ppm, row.validation_examples
    # From a million examples on, parts per million do not tell the count.
    if before is None or after is None or examples is None or examples >= 1_000_000:
        return percent(before) if after is None else f"{percent(before)} → {percent(after)}"
    right = [round(ppm * examples / 1_000_000) for ppm in (before, after)]
    return f"{right[0]} → {right[1]} of {examples}"
