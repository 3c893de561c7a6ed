"""`python -m bench.agreement`: do our rules give what ByzFL's and Flower's give, where the definitions agree?

Ours are those that Concordat offers, and those that the attack suite only compares with. Compares aggregates of random
updates. A pair that is defined alike must agree to 1e-6 of the norm; a pair that is not is listed with the reason, and
where a setting of the peer makes the definitions equal, that is what is compared. Exit status 1 if an agreement that is
expected fails.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import byzfl
import numpy as np
from numpy.typing import NDArray

from bench.attacks.compared import NOT_OFFERED, Given
from bench.peers import BYZFL, FLOWER, PeerRule, byzfl_rule
from concordat.aggregation import aggregate
from concordat.api.aggregation_rules import PreAggregation, Rule

Rows = NDArray[np.float32]
TOLERANCE = 1e-6
CASES = ((15, 3), (16, 3), (25, 5), (64, 12))
"""(n, f)."""
SCALES = (1e-3, 1.0, 1e3)
"""Norms of honest updates."""
_SIZE = 3000


@dataclass(frozen=True)
class Pair:
    """One rule of ours and one of a peer. `reason`: why they differ, or what makes them equal."""

    ours: str
    peer: str
    run: Callable[[Rows, int], NDArray[Any]]
    peer_rule: PeerRule
    agree: bool = True
    reason: str = ""


def ours(rule: Rule, pre: PreAggregation = PreAggregation.NONE) -> Callable[[Rows, int], NDArray[Any]]:
    """A rule of Concordat on an array of updates."""
    return lambda rows, faulty: aggregate([{"x": row} for row in rows], rule, faulty, pre=pre).tensors["x"]


def other(name: str) -> Callable[[Rows, int], NDArray[Any]]:
    """A rule that the attack suite compares with."""
    return lambda rows, faulty: NOT_OFFERED[name](rows, Given(faulty))[0]


def pairs() -> list[Pair]:
    """What is compared."""
    nnm, arc = PreAggregation.NNM, PreAggregation.ARC
    mean, median, trimmed = ours(Rule.MEAN), other("coordinate median"), ours(Rule.TRIMMED_MEAN)
    krum, multi = other("Krum"), other("Multi-Krum")
    # Of a fault more: n − (f + 1) − 1 neighbours are the n − f − 2 of the paper.
    paper_krum = byzfl_rule(lambda f: byzfl.Krum(f + 1))
    converged = byzfl_rule(lambda f: byzfl.GeometricMedian(nu=1e-30, T=2000))
    return [
        Pair("Mean", "ByzFL Average", mean, BYZFL["Average"]),
        Pair("Mean", "Flower FedAvg", mean, FLOWER["FedAvg"], reason="with equal numbers of examples"),
        Pair("CoordinateMedian", "ByzFL Median", median, BYZFL["Median"]),
        Pair("CoordinateMedian", "Flower FedMedian", median, FLOWER["FedMedian"]),
        Pair("TrimmedMean", "ByzFL TrMean", trimmed, BYZFL["TrMean"]),
        Pair("TrimmedMean", "Flower FedTrimmedAvg", trimmed, FLOWER["FedTrimmedAvg"], reason="cutting the share f/n"),
        Pair("Krum", "Flower Krum", krum, FLOWER["Krum"]),
        Pair("Krum", "ByzFL Krum(f + 1)", krum, paper_krum, reason="f + 1 makes its neighbours the paper's n − f − 2"),
        Pair("Krum", "ByzFL Krum", krum, BYZFL["Krum"], False, "scores with n − f − 1 neighbours; paper: n − f − 2"),
        Pair("MultiKrum", "Flower Krum, keep n−f", multi, FLOWER["Krum, keep n−f"]),
        Pair("MultiKrum", "Flower MultiKrum", multi, FLOWER["MultiKrum (serverapp)"],
             reason="keeping n − f; on updates: on whole models its float32 distances are wrong"),
        Pair("MultiKrum", "ByzFL MultiKrum", multi, BYZFL["MultiKrum"], False, "scores with n − f − 1 neighbours"),
        Pair("Bulyan", "Flower Bulyan", other("Bulyan"), FLOWER["Bulyan"],
             reason="for f ≥ 3: with less, two that are each other's only neighbour tie, and break the tie otherwise"),
        Pair("GeometricMedian", "ByzFL, converged", other("geometric median"), converged,
             reason="2000 steps and no smoothing instead of its 3 and 0.1"),
        Pair("GeometricMedian", "ByzFL GeometricMedian", other("geometric median"), BYZFL["GeometricMedian"], False,
             "3 steps; smoothed below the fixed length 0.1, for smaller updates the mean"),
        Pair("CenteredClipping", "ByzFL CenteredClipping", other("centered clipping"), BYZFL["CenteredClipping"],
             False, "1 step from 0 with radius 100; ours 3 from the medoid with the median distance"),
        Pair("MeaMed", "ByzFL Meamed", other("MeaMed"), BYZFL["Meamed"]),
        Pair("CAF", "ByzFL CAF", ours(Rule.CAF), BYZFL["CAF"], False,
             "one power iteration from a random vector; ours takes the exact eigenpair"),
        Pair("NNM + TrimmedMean", "ByzFL NNM, TrMean", ours(Rule.TRIMMED_MEAN, nnm), BYZFL["NNM + TrMean"]),
        Pair("NNM + CoordinateMedian", "ByzFL NNM, Median", other("NNM + median"), BYZFL["NNM + Median"]),
        Pair("ARC + TrimmedMean", "ByzFL ARC, TrMean", ours(Rule.TRIMMED_MEAN, arc), BYZFL["ARC + TrMean"]),
        Pair("Bucketing + GeometricMedian", "ByzFL Bucketing, GeometricMedian",
             other("bucketing + geometric median"), BYZFL["Bucketing + GeometricMedian"], False,
             "another random permutation, and the geometric median above"),
    ]  # fmt: skip


def updates(n: int, faulty: int, scale: float, seed: int) -> Rows:
    """Random updates (n, 3000): a common part and one of each; the first `faulty` are larger and point elsewhere."""
    rng = np.random.default_rng([n, faulty, seed])
    rows = rng.standard_normal(_SIZE) + rng.standard_normal((n, _SIZE))
    rows[:faulty] = 3 * rng.standard_normal((faulty, _SIZE)) - 1
    return np.asarray(rows * (scale / np.sqrt(2 * _SIZE)), dtype=np.float32)


def difference(pair: Pair) -> float:
    """The largest difference over the cases, as a share of the norm of the largest honest update."""
    worst = 0.0
    for n, faulty in CASES:
        for scale in SCALES:
            rows = updates(n, faulty, scale, seed=0)
            apart = pair.run(rows, faulty).astype(np.float64) - pair.peer_rule(rows, faulty)
            size = np.linalg.norm(rows[faulty:].astype(np.float64), axis=1).max()
            worst = max(worst, float(np.linalg.norm(apart) / size))
    return worst


def main() -> int:
    """Print the table; 1 if an expected agreement fails."""
    print(f"Largest difference over (n, f) in {CASES} and norms {SCALES}, relative to an update:\n")
    failed = 0
    for pair in pairs():
        found = difference(pair)
        missed = pair.agree and found > TOLERANCE
        failed += missed
        verdict = "MUST AGREE" if missed else "agrees" if pair.agree else "unlike"
        print(f"{pair.ours:28} {pair.peer:33} {found:8.1e}  {verdict:10} {pair.reason}")
    print("\nNo peer has: DnC, FLTrust, the norm-bounded mean.")
    if failed:
        print(f"{failed} pairs that are defined alike differ by more than {TOLERANCE}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
