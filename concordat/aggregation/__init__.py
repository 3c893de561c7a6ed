"""How accepted updates become one, however many and large: streamed by block of columns, in bounded memory.

Rules look at each coordinate by itself, or only at how the updates lie to each other: then one pass makes the Gram,
and a second one a weighted sum. Every update counts the same; no rule takes a weight that a site chooses.
"""

from __future__ import annotations

from concordat.aggregation.blocks import Progress
from concordat.aggregation.engine import Aggregate, aggregate, apply_delta, mixing, shares
from concordat.aggregation.geometry import Gram, gram
from concordat.aggregation.rows import AggregationError, Rows
from concordat.tensors import Tensors

__all__ = [
    "Aggregate",
    "AggregationError",
    "Gram",
    "Progress",
    "Rows",
    "Tensors",
    "aggregate",
    "apply_delta",
    "gram",
    "mixing",
    "shares",
]
