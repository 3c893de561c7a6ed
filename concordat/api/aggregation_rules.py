"""How many updates a rule needs to withstand `maxFaultySites` of them: for admission, plans and the engine alike."""

from __future__ import annotations

from enum import StrEnum


class Rule(StrEnum):
    """How accepted updates become one."""

    MEAN = "Mean"
    NORM_BOUNDED_MEAN = "NormBoundedMean"
    COORDINATE_MEDIAN = "CoordinateMedian"
    TRIMMED_MEAN = "TrimmedMean"
    KRUM = "Krum"
    MULTI_KRUM = "MultiKrum"
    BULYAN = "Bulyan"
    GEOMETRIC_MEDIAN = "GeometricMedian"
    CENTERED_CLIPPING = "CenteredClipping"
    MEAMED = "MeaMed"
    DNC = "DnC"
    CAF = "CAF"
    FLTRUST = "FLTrust"


class PreAggregation(StrEnum):
    """What is done to the updates before the rule."""

    NONE = "None"
    NNM = "NNM"
    BUCKETING = "Bucketing"
    ARC = "ARC"


BUCKET = 2
"""Updates in one bucket (Karimireddy et al., ICLR 2022, section 5)."""
UNPROTECTED = frozenset({Rule.MEAN, Rule.NORM_BOUNDED_MEAN, Rule.FLTRUST})
"""Rules that need no majority: two withstand nothing, one trusts a reference instead."""
STANDALONE = frozenset({Rule.MEAN, Rule.NORM_BOUNDED_MEAN, Rule.FLTRUST})
"""Rules that take no pre-aggregation: mixed with it they are what neither paper describes, and NNM before a mean is
not robust (a liar keeps 1/(n - f) of its weight)."""
COORDINATE = frozenset({Rule.COORDINATE_MEDIAN, Rule.TRIMMED_MEAN, Rule.BULYAN, Rule.MEAMED})
"""Rules that look at each coordinate by itself; the result of the others is a weighted sum of updates."""
_TERMS = {Rule.KRUM: (2, 3), Rule.MULTI_KRUM: (2, 3), Rule.BULYAN: (4, 3)}
_MAJORITY = (2, 1)


def least_updates(rule: Rule, pre: PreAggregation, max_faulty: int) -> int:
    """Return the smallest number of updates of which the rule withstands `max_faulty`."""
    factor, constant = (0, 1) if rule in UNPROTECTED else _TERMS.get(rule, _MAJORITY)
    least = factor * max_faulty + constant
    return BUCKET * (least - 1) + 1 if pre is PreAggregation.BUCKETING else least


def shortage(rule: Rule, pre: PreAggregation, max_faulty: int, updates: int) -> str | None:
    """Return why the rule cannot withstand `max_faulty` of so many updates, with the arithmetic; None: it can."""
    least = least_updates(rule, pre, max_faulty)
    if updates >= least:
        return None
    factor, constant = (0, 1) if rule in UNPROTECTED else _TERMS.get(rule, _MAJORITY)
    sum_ = f"{factor} * {max_faulty} + {constant}"
    if pre is PreAggregation.BUCKETING:
        return (
            f"{rule.value} over buckets of {BUCKET} with maxFaultySites {max_faulty} needs "
            f"{BUCKET} * ({sum_} - 1) + 1 = {least} updates; there are {updates}"
        )
    return f"{rule.value} with maxFaultySites {max_faulty} needs {sum_} = {least} updates; there are {updates}"


def most_faulty(rule: Rule, pre: PreAggregation, wanted: int, updates: int) -> int:
    """Return the largest number up to `wanted` that the rule withstands among so many updates.

    0 if there is none, and for the rules that withstand nothing by their number.
    """
    able = (number for number in range(wanted, 0, -1) if least_updates(rule, pre, number) <= updates)
    return 0 if rule in UNPROTECTED else next(able, 0)


def least_updates_cel(rule: str, pre: str, max_faulty: str) -> str:
    """`least_updates` as a CEL expression of three CEL expressions."""
    special = "".join(
        f"{rule} == '{name.value}' ? {factor} * {max_faulty} + {constant} : "
        for name, (factor, constant) in _TERMS.items()
    )
    unprotected = ", ".join(f"'{name.value}'" for name in sorted(UNPROTECTED))
    factor, constant = _MAJORITY
    least = f"({special}{rule} in [{unprotected}] ? 1 : {factor} * {max_faulty} + {constant})"
    return f"({pre} == '{PreAggregation.BUCKETING.value}' ? {BUCKET} * ({least} - 1) + 1 : {least})"
