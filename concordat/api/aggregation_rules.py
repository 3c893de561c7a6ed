"""How many updates a rule needs to withstand `maxFaultySites` of them: for admission, plans and the engine alike."""

from __future__ import annotations

from enum import StrEnum


class Rule(StrEnum):
    """How accepted updates become one."""

    MEAN = "Mean"
    TRIMMED_MEAN = "TrimmedMean"
    DNC = "DnC"
    CAF = "CAF"
    FLTRUST = "FLTrust"


class PreAggregation(StrEnum):
    """What is done to the updates before the rule."""

    NONE = "None"
    NNM = "NNM"
    ARC = "ARC"


UNPROTECTED = frozenset({Rule.MEAN, Rule.FLTRUST})
"""Rules that need no majority: the mean withstands nothing, FLTrust trusts a reference instead. They take no
pre-aggregation: NNM before a mean is not robust (a liar keeps 1/(n - f) of its weight), and none belongs to FLTrust."""


def least_updates(rule: Rule, max_faulty: int) -> int:
    """Return the smallest number of updates of which the rule withstands `max_faulty`: a majority is honest."""
    return 1 if rule in UNPROTECTED else 2 * max_faulty + 1


def shortage(rule: Rule, max_faulty: int, updates: int) -> str | None:
    """Return why the rule cannot withstand `max_faulty` of so many updates, with the arithmetic; None: it can."""
    least = least_updates(rule, max_faulty)
    if updates >= least:
        return None
    return (
        f"{rule.value} with maxFaultySites {max_faulty} needs 2 * {max_faulty} + 1 = {least} updates; "
        f"there are {updates}"
    )


def most_faulty(rule: Rule, wanted: int, updates: int) -> int:
    """Return the largest number up to `wanted` that the rule withstands among so many updates.

    0 if there is none, and for the rules that withstand nothing by their number.
    """
    return 0 if rule in UNPROTECTED else max(0, min(wanted, (updates - 1) // 2))


def least_updates_cel(rule: str, max_faulty: str) -> str:
    """`least_updates` as a CEL expression of two CEL expressions."""
    unprotected = ", ".join(f"'{name.value}'" for name in sorted(UNPROTECTED))
    return f"({rule} in [{unprotected}] ? 1 : 2 * {max_faulty} + 1)"
