"""Adding a delta to its parent."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from concordat.aggregation import AggregationError, apply_delta


def test_applying_changes_only_what_the_delta_names() -> None:
    parent = {"a": np.ones(2, np.float32), "b": np.ones(2, np.float32)}
    found = apply_delta(parent, {"b": np.full(2, 0.5, np.float32)})
    assert {n: t.tolist() for n, t in found.items()} == {"a": [1, 1], "b": [1.5, 1.5]}
    assert all(t.dtype == np.float32 for t in found.values())
    assert parent["b"].tolist() == [1, 1]


@pytest.mark.parametrize("delta", [{"c": np.zeros(2, np.float32)}, {"a": np.zeros(3, np.float32)}])
def test_a_delta_that_does_not_fit_the_parent_is_not_applied(delta: dict[str, Any]) -> None:
    with pytest.raises(AggregationError, match="the parent has no tensor"):
        apply_delta({"a": np.ones(2, np.float32)}, delta)
