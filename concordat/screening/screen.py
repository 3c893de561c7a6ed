"""The screening of one round: which updates are rejected, what raises an alert, and what is left of the fault budget.

The caller has done the steps that need only one update: (1) identity, (2) form, (3) parent, (4) norms. Here follow
(5) duplicates and (6) free riding, which reject; (7) alerts, which do not; (8) the functional check; (9) the decision.
An update that one step rejects is not there for the next: it moves no median and no centre.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from concordat.api.conditions import Reason
from concordat.screening import alerts, likeness
from concordat.screening.alerts import Alert, Floats
from concordat.screening.likeness import Likeness
from concordat.screening.norms import decimal, signed

MIN_RELATIVE_NORM = 0.05
"""Of the median norm; below it an update is next to nothing."""
_LEAST_FOR_MEDIAN = 3
_INDEPENDENT = 2


@dataclass(frozen=True)
class Candidate:
    """One update that passed steps 1 to 4."""

    site: str
    norm: float
    """Frobenius norm of the weight change; finite."""
    arrived: int
    """Place in the order in which the hub saw the updates arrive: of two that are alike the earlier stays."""


@dataclass(frozen=True)
class Functional:
    """What an update does by itself, on data of the hub."""

    loss_change: float
    """Mean loss (cross entropy, nats) of parent + update, minus that of the parent."""
    trigger_gain: float
    """Part of the canary examples (0 to 1) that a trigger turns to one class more than with the parent; the worst."""
    trigger: str
    """Name of the trigger with the worst gain."""


@dataclass(frozen=True)
class FunctionalLimits:
    """What the functional check allows: screening.canary of the contract."""

    max_loss_increase: float
    """Nats."""
    max_trigger_gain: float
    """0 to 1."""


@dataclass(frozen=True)
class FunctionalCheck:
    """The results of the functional check of a round, and what it allows."""

    results: Mapping[str, Functional]
    """By site; every update that is not rejected before step 8 must have one."""
    limits: FunctionalLimits


@dataclass(frozen=True)
class Findings:
    """What screening found of one update."""

    site: str
    reason: Reason
    """Verified, or why it is rejected: NearDuplicate, FreeRiding, PoisoningSuspected."""
    message: str
    alerts: tuple[Alert, ...]
    numbers: dict[str, float]
    """What was computed before the decision, by name: docs/aggregation.md."""
    near: str | None
    """The site that nearestCosine is to: nearest in direction of those that are no duplicates."""


@dataclass(frozen=True)
class Screened:
    """The decision on a round."""

    findings: tuple[Findings, ...]
    """By site name."""
    rejected: int
    """Rejections charged to the fault budget, those of earlier steps included."""
    remaining_faults: int
    """What the aggregation rule must still withstand: max(f − rejected, 0)."""
    held: bool
    """More rejections than the budget, which was too small then: a person must approve what is made of the rest."""
    suspected: tuple[str, ...]
    """Sites with independent alerts and a failed functional check, by name."""


def screen(
    candidates: Sequence[Candidate],
    inner: NDArray[Any],
    distances2: NDArray[Any],
    *,
    max_faulty: int,
    charged_before: int,
    previous: NDArray[Any] | None = None,
    functional: FunctionalCheck | None = None,
) -> Screened:
    """Screen the updates of one round against each other: steps 5 to 9.

    `inner` and `distances2` (n, n) are the dot products of the updates (not centred) and their squared distances, as
    weight changes, in the order of `candidates`; `previous` (n,) is the cosine of each to the last aggregate, None
    where there is none or it is zero. `charged_before` counts the rejections of step 4 and the exact duplicates.

    Raises ValueError if the shapes do not fit, or if a functional result is missing.
    """
    n = len(candidates)
    if inner.shape != (n, n) or distances2.shape != (n, n) or (previous is not None and previous.shape != (n,)):
        raise ValueError(f"inner and distances2 must be ({n}, {n}) and previous ({n},): one row for each candidate")
    # By name: then the result does not depend on the order of the candidates, to the last bit.
    order = sorted(range(n), key=lambda i: candidates[i].site)
    inner, distances2 = inner[np.ix_(order, order)], distances2[np.ix_(order, order)]
    cases = [_Case(candidates[i]) for i in order]
    _duplicates(cases, inner)
    _free_riding(cases, np.diag(inner), None if previous is None else previous[order])
    rejected = charged_before + sum(not case.passed for case in cases)
    _alerts(cases, inner, distances2, max(max_faulty - rejected, 0))
    if functional is not None:
        _functional(cases, functional)
    findings = tuple(case.findings() for case in cases)
    rejected = charged_before + sum(not case.passed for case in cases)
    return Screened(
        findings=findings,
        rejected=rejected,
        remaining_faults=max(max_faulty - rejected, 0),
        held=rejected > max_faulty,
        suspected=tuple(f.site for f in findings if f.reason is Reason.POISONING_SUSPECTED),
    )


@dataclass
class _Case:
    """One candidate on its way through the steps."""

    candidate: Candidate
    reason: Reason = Reason.VERIFIED
    said: list[str] = field(default_factory=list)
    alerts: dict[Alert, str] = field(default_factory=dict)
    numbers: dict[str, float] = field(default_factory=dict)
    near: str | None = None

    def __post_init__(self) -> None:
        self.numbers["norm"] = self.candidate.norm

    @property
    def passed(self) -> bool:
        return self.reason is Reason.VERIFIED

    def reject(self, reason: Reason, message: str) -> None:
        self.reason = reason
        self.said.append(message)

    def findings(self) -> Findings:
        said = [*self.said, *(f"{alert.value} alert: {words}" for alert, words in self.alerts.items())]
        message = "; ".join(said) or "nothing out of the ordinary"
        return Findings(self.candidate.site, self.reason, message, tuple(self.alerts), self.numbers, self.near)


def _passed(cases: Sequence[_Case]) -> list[int]:
    return [i for i, case in enumerate(cases) if case.passed]


def _duplicates(cases: Sequence[_Case], inner: Floats) -> None:
    """Step 5: of two updates that are alike, the one that the hub saw first stays: a copy is made after its original.

    Whatever their norms: scaling hides nothing.
    """
    norms = np.sqrt(np.diag(inner))
    moving = sorted(np.flatnonzero(norms > 0).tolist(), key=lambda i: cases[i].candidate.arrived)
    if len(moving) < _INDEPENDENT:
        return
    unit = norms[moving]
    gaps = 1 - np.clip(inner[np.ix_(moving, moving)] / unit / unit[:, None], -1, 1)
    found = likeness.copies(gaps)
    kept = [row for row in range(len(moving)) if row not in found]
    for row, i in enumerate(moving):
        copied = found.get(row)
        others = [other for other in kept if other != row]
        nearest = copied.of if copied else min(others, key=lambda other: gaps[row, other], default=None)
        if nearest is not None:
            cases[i].numbers["nearestCosine"] = 1 - float(gaps[row, nearest])
            cases[i].near = cases[moving[nearest]].candidate.site
        if copied is not None:
            words = _alike(copied, "the others are to their nearest")
            cases[i].reject(
                Reason.NEAR_DUPLICATE, f"the update copies that of {cases[i].near}, which came first: {words}"
            )


def _alike(found: Likeness, usually: str) -> str:
    cosine = f"cosine {signed(1 - found.gap)}"
    if found.usual is None or found.gap < likeness.ROUNDING:
        return cosine
    return f"{cosine}, {found.usual / found.gap:.0f} times as close as {usually}"


def _free_riding(cases: Sequence[_Case], squares: Floats, previous: Floats | None) -> None:
    """Step 6: no change, next to none, or the last aggregate sent back."""
    for case, square in zip(cases, squares, strict=True):
        # Both: a norm above zero may underflow when it is squared.
        if case.passed and (case.candidate.norm == 0 or square == 0):
            case.reject(Reason.FREE_RIDING, "the update changes nothing: its norm is 0")
    _relative_norms(cases)
    passed = _passed(cases)
    repeated = {} if previous is None else likeness.replays(1 - np.clip(previous[passed], -1, 1))
    for row, i in enumerate(passed):
        case = cases[i]
        relative = case.numbers.get("relativeNorm", 1.0)
        if previous is not None:
            case.numbers["previousCosine"] = float(previous[i])
        if relative < MIN_RELATIVE_NORM:
            case.reject(
                Reason.FREE_RIDING,
                f"the norm {decimal(case.candidate.norm)} is {signed(relative)} times the round's median, at least "
                f"{signed(MIN_RELATIVE_NORM)}",
            )
        elif row in repeated:
            words = _alike(repeated[row], "the others are to it")
            case.reject(Reason.FREE_RIDING, f"the update repeats the last aggregate: {words}")


def _relative_norms(cases: Sequence[_Case]) -> None:
    passed = _passed(cases)
    if len(passed) >= _LEAST_FOR_MEDIAN:
        median = float(np.median([cases[i].candidate.norm for i in passed]))
        for i in passed:
            cases[i].numbers["relativeNorm"] = cases[i].candidate.norm / median


def _alerts(cases: Sequence[_Case], inner: Floats, distances2: Floats, faulty: int) -> None:
    """Step 7, among those that are left."""
    _relative_norms(cases)
    passed = _passed(cases)
    norms = np.array([cases[i].candidate.norm for i in passed])
    block = np.ix_(passed, passed)
    for i, measured in zip(passed, alerts.measure(norms, inner[block], distances2[block], faulty), strict=True):
        case = cases[i]
        case.numbers.update(measured)
        case.alerts = alerts.raised(case.numbers)


def _functional(cases: Sequence[_Case], check: FunctionalCheck) -> None:
    """Step 8. No reason to reject by itself: honest sites with unusual data raise the hub's loss, and answer odd images
    in their own way; the candidate is checked for itself."""
    results = check.results
    missing = [cases[i].candidate.site for i in _passed(cases) if cases[i].candidate.site not in results]
    if missing:
        raise ValueError(f"the functional check needs a result for each update; missing: {missing}")
    for i in _passed(cases):
        case, result = cases[i], results[cases[i].candidate.site]
        case.numbers["lossChange"], case.numbers["triggerGain"] = result.loss_change, result.trigger_gain
        failures = list(_failures(result, check.limits))
        if failures:
            hints = alerts.raised(case.numbers, alerts.HINTS)
            if alerts.independent(hints) >= _INDEPENDENT:
                beside = "; ".join(f"{hint.value} {words}" for hint, words in hints.items())
                case.reject(Reason.POISONING_SUSPECTED, f"beside a failed functional check: {beside}")
            case.alerts[Alert.FUNCTIONAL] = "; ".join(failures)


def _failures(result: Functional, limits: FunctionalLimits) -> Iterator[str]:
    # Written so that what is not a number fails.
    if not result.trigger_gain <= limits.max_trigger_gain:
        yield (
            f"with the trigger {result.trigger}, {signed(100 * result.trigger_gain)} % more of the canary examples go "
            f"to one class, at most {signed(100 * limits.max_trigger_gain)} % (screening.canary.maxTriggerGainPpm)"
        )
    if not result.loss_change <= limits.max_loss_increase:
        yield (
            f"the loss on the canary data rises by {signed(result.loss_change)}, at most "
            f"{signed(limits.max_loss_increase)} (screening.canary.maxLossIncrease)"
        )
