"""The peers: the aggregation rules of ByzFL and Flower, called the way their users call them.

Imports torch (through byzfl), so it takes some seconds. Each rule takes updates (n, P) and the number f of faulty ones
and gives the aggregate (P,).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import byzfl
import numpy as np
from flwr.app import Array, ArrayRecord, MetricRecord, RecordDict
from flwr.server.strategy import aggregate as legacy
from flwr.serverapp.strategy import multikrum, strategy_utils
from numpy.typing import NDArray

Rows = NDArray[Any]
PeerRule = Callable[[Rows, int], NDArray[Any]]


def byzfl_rule(make: Callable[[int], Any], before: Callable[[int], Any] | None = None) -> PeerRule:
    """A ByzFL aggregator, on numpy arrays, after a pre-aggregator if there is one."""

    def rule(rows: Rows, faulty: int) -> NDArray[Any]:
        # A copy, as byzfl.ARC clips its argument in place.
        mixed = rows.copy() if before is None else before(faulty)(rows.copy())
        # CenteredClipping divides by the norms, of which free riders have none.
        with np.errstate(divide="ignore"):
            return np.asarray(make(faulty)(mixed))

    return rule


def _centered_clipping(rows: Rows, faulty: int) -> NDArray[Any]:
    """With a radius that clips: its default, 100, is far above the norms of such updates."""
    radius = float(np.median(np.linalg.norm(rows, axis=1)))
    return byzfl_rule(lambda f: byzfl.CenteredClipping(tau=radius))(rows, faulty)


BYZFL: dict[str, PeerRule] = {
    "Average": byzfl_rule(lambda f: byzfl.Average()),
    "Median": byzfl_rule(lambda f: byzfl.Median()),
    "TrMean": byzfl_rule(lambda f: byzfl.TrMean(f)),
    "Krum": byzfl_rule(lambda f: byzfl.Krum(f)),
    "MultiKrum": byzfl_rule(lambda f: byzfl.MultiKrum(f)),
    "GeometricMedian": byzfl_rule(lambda f: byzfl.GeometricMedian()),
    "CenteredClipping": byzfl_rule(lambda f: byzfl.CenteredClipping()),
    "CenteredClipping, τ = median norm": _centered_clipping,
    "Meamed": byzfl_rule(lambda f: byzfl.Meamed(f)),
    "CAF": byzfl_rule(lambda f: byzfl.CAF(f)),
    "NNM + TrMean": byzfl_rule(lambda f: byzfl.TrMean(f), lambda f: byzfl.NNM(f)),
    "NNM + Median": byzfl_rule(lambda f: byzfl.Median(), lambda f: byzfl.NNM(f)),
    "ARC + TrMean": byzfl_rule(lambda f: byzfl.TrMean(f), lambda f: byzfl.ARC(f)),
    "Bucketing + GeometricMedian": byzfl_rule(lambda f: byzfl.GeometricMedian(), lambda f: byzfl.Bucketing(2)),
}
"""At their defaults, unless the name says otherwise."""


def _results(rows: Rows) -> list[tuple[list[NDArray[Any]], int]]:
    # The same number of examples from all: Flower weights some rules by what clients report.
    return [([row], 1) for row in rows]


def _message_multi_krum(rows: Rows, faulty: int) -> NDArray[Any]:
    records = [
        RecordDict({"arrays": ArrayRecord({"x": Array(row)}), "metrics": MetricRecord({"num-examples": 1})})
        for row in rows
    ]
    chosen = multikrum.select_multikrum(records, faulty, len(rows) - faulty)
    return np.asarray(strategy_utils.aggregate_arrayrecords(chosen, "num-examples")["x"].numpy())


FLOWER: dict[str, PeerRule] = {
    "FedAvg": lambda rows, f: legacy.aggregate(_results(rows))[0],
    "FedMedian": lambda rows, f: legacy.aggregate_median(_results(rows))[0],
    # A little more than f/n, as Flower rounds n times the share down.
    "FedTrimmedAvg": lambda rows, f: legacy.aggregate_trimmed_avg(_results(rows), (f + 0.5) / len(rows))[0],
    "Krum": lambda rows, f: legacy.aggregate_krum(_results(rows), f, 0)[0],
    "Krum, keep n−f": lambda rows, f: legacy.aggregate_krum(_results(rows), f, len(rows) - f)[0],
    "Bulyan": lambda rows, f: legacy.aggregate_bulyan(_results(rows), f, legacy.aggregate_krum, to_keep=0)[0],
    "MultiKrum (serverapp)": _message_multi_krum,
}
"""flwr.server.strategy, and MultiKrum of flwr.serverapp.strategy with the same number to keep."""
