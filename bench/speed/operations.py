"""What is timed: each implementation's operations on the same updates, as closures that take nothing.

Loading, stacking and packing into the form that a library takes happen before and are not timed. Each library is
imported only by the process that measures it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from bench.speed.inputs import Update, faulty

Operations = dict[str, Callable[[], Any]]
MEAN, TRIMMED, PAIRWISE = "mean", "trimmed mean", "pairwise distances"
NNM_TRIMMED, ARC_DNC, CAF = "NNM + trimmed mean", "ARC + DnC", "CAF"
OPERATIONS = (MEAN, TRIMMED, PAIRWISE, NNM_TRIMMED, ARC_DNC, CAF)
READ, SGEMM, CAF_WEIGHTS = "read", "sgemm", "CAF's weights"
SGEMM_COLUMNS, _BLOCK = 1 << 17, 1 << 13
CAF_UPDATES = 256


def machine(updates: list[Update]) -> Operations:
    """The yardsticks: reading every value once, and sgemm X·Yᵀ of n rows, by blocks, one for each thread."""
    from threadpoolctl import threadpool_limits

    rng = np.random.default_rng(0)
    left, right = (rng.standard_normal((len(updates), SGEMM_COLUMNS), dtype=np.float32) for _ in range(2))
    starts = range(0, SGEMM_COLUMNS, _BLOCK)
    blocks = [tuple(x[:, i : i + _BLOCK].copy() for x in (left, right)) for i in starts]
    pool = ThreadPoolExecutor(threads())

    def sgemm() -> list[Any]:
        with threadpool_limits(1, user_api="blas"):
            return list(pool.map(lambda block: block[0] @ block[1].T, blocks))

    return {READ: reading(updates), SGEMM: sgemm}


def threads() -> int:
    """Threads that this process may use: `clean_environment` sets them."""
    return int(os.environ["OMP_NUM_THREADS"])


def reading(updates: list[Update]) -> Callable[[], Any]:
    """Every value once, with all threads."""
    tensors = [tensor for update in updates for tensor in update.values()]
    n = threads()
    pool = ThreadPoolExecutor(n)
    return lambda: list(pool.map(lambda start: [tensor.sum() for tensor in tensors[start::n]], range(n)))


def concordat(updates: list[Update]) -> Operations:
    """The engine, on the mapped files."""
    from concordat.aggregation import Rows, aggregate, gram
    from concordat.api.aggregation_rules import PreAggregation, Rule

    f = faulty(len(updates))

    def run(rule: Rule, pre: PreAggregation = PreAggregation.NONE) -> Callable[[], Any]:
        return lambda: aggregate(updates, rule, f, pre=pre).tensors

    return {
        MEAN: run(Rule.MEAN),
        TRIMMED: run(Rule.TRIMMED_MEAN),
        PAIRWISE: lambda: gram(Rows(updates)).distances2,
        NNM_TRIMMED: run(Rule.TRIMMED_MEAN, PreAggregation.NNM),
        ARC_DNC: run(Rule.DNC, PreAggregation.ARC),
        CAF: run(Rule.CAF),
        CAF_WEIGHTS: caf_weights(),
    }


def caf_weights() -> Callable[[], Any]:
    """CAF from the products of CAF_UPDATES updates, each a tenth longer than the last: it takes one out at a time, so
    that it computes as many eigenvectors as it ever does, 2f.
    """
    from concordat.aggregation import Rows, gram, shares
    from concordat.api.aggregation_rules import Rule

    rows = np.random.default_rng(1).standard_normal((CAF_UPDATES, 3000)) * 1.1 ** np.arange(CAF_UPDATES)[:, None]
    products = gram(Rows([{"x": row.astype(np.float32)} for row in rows]))
    return lambda: shares(products, Rule.CAF, faulty(CAF_UPDATES))


def byzfl_numpy(updates: list[Update]) -> Operations:
    """ByzFL on one numpy array (n, P)."""
    return _byzfl(_stacked(updates))


def byzfl_torch(updates: list[Update]) -> Operations:
    """ByzFL on one torch tensor (n, P)."""
    import torch

    return _byzfl(torch.from_numpy(_stacked(updates)))


def _byzfl(rows: Any) -> Operations:
    import byzfl
    from byzfl.utils.misc import distance_tool

    f = faulty(len(rows))
    return {
        MEAN: lambda: byzfl.Average()(rows),
        TRIMMED: lambda: byzfl.TrMean(f)(rows),
        PAIRWISE: lambda: distance_tool(rows).cdist(rows, rows),
        NNM_TRIMMED: lambda: byzfl.TrMean(f)(byzfl.NNM(f)(rows)),
        CAF: lambda: byzfl.CAF(f)(rows),
    }


def flower(updates: list[Update]) -> Operations:
    """Flower's aggregation functions (flwr.server.strategy), on lists of the mapped arrays."""
    from flwr.server.strategy import aggregate as legacy

    n, f = len(updates), faulty(len(updates))
    results: list[Any] = [(list(update.values()), 1) for update in updates]
    return {
        MEAN: lambda: legacy.aggregate(results),
        TRIMMED: lambda: legacy.aggregate_trimmed_avg(results, (f + 0.5) / n),
    }


def flower_serverapp(updates: list[Update]) -> Operations:
    """Flower's message API (flwr.serverapp.strategy), on records, which hold encoded arrays."""
    from flwr.app import Array, ArrayRecord, MetricRecord, RecordDict
    from flwr.serverapp.strategy import multikrum, strategy_utils

    records = [
        RecordDict(
            {
                "arrays": ArrayRecord({name: Array(tensor) for name, tensor in update.items()}),
                "metrics": MetricRecord({"num-examples": 1}),
            }
        )
        for update in updates
    ]
    arrays = [record.array_records["arrays"] for record in records]
    return {
        MEAN: lambda: strategy_utils.aggregate_arrayrecords(records, "num-examples"),
        PAIRWISE: lambda: multikrum.compute_distances(arrays),
    }


OURS, MACHINE, JOB = "Concordat", "machine", "the Job"
NUMPY = "ByzFL, numpy"
PEERS: dict[str, Callable[[list[Update]], Operations]] = {
    NUMPY: byzfl_numpy,
    "ByzFL, torch": byzfl_torch,
    "Flower": flower,
    "Flower serverapp": flower_serverapp,
}
IMPLEMENTATIONS = {MACHINE: machine, OURS: concordat, **PEERS}
"""And JOB, which needs a folder."""


def _stacked(updates: list[Update]) -> Any:
    return np.stack([np.concatenate([tensor.reshape(-1) for tensor in update.values()]) for update in updates])
