"""What `make soak` calls flat."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.machine import stored_bytes
from bench.soak.samples import slope


def test_the_slope_of_a_line_is_found_with_its_uncertainty() -> None:
    exact = slope([10, 20, 30, 40, 50], [1.0, 2.0, 3.0, 4.0, 5.0])
    assert exact is not None
    assert exact.per_hundred == pytest.approx(10)
    assert exact.uncertainty == pytest.approx(0)
    assert not exact.flat
    # Student's quantile for three degrees of freedom is 3.182.
    noisy = slope([1, 2, 3, 4, 5], [0.0, 1.0, 0.0, 1.0, 0.0])
    assert noisy is not None
    assert noisy.per_hundred == pytest.approx(0)
    assert noisy.uncertainty == pytest.approx(100 * 3.182 * 0.2, rel=0.01)
    assert noisy.flat


def test_three_samples_have_no_slope() -> None:
    assert slope([1, 2, 3], [1.0, 2.0, 3.0]) is None


def test_growth_below_one_percent_of_the_mean_is_flat() -> None:
    little = slope([0, 100, 200, 300], [1000.0, 1005.0, 1010.0, 1015.0])
    assert little is not None
    assert little.per_hundred == pytest.approx(5)
    assert little.flat


def test_bytes_are_counted_while_others_delete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A soak ended after 70 rounds: the hub deleted from the registry what was being counted."""
    for name in ("a/b/c", "d"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"12345")
    assert stored_bytes(tmp_path) == 10

    walk = os.walk

    def deleting(top: Path) -> Iterator[tuple[str, list[str], list[str]]]:
        for found in walk(top):
            shutil.rmtree(tmp_path / "a", ignore_errors=True)
            yield found

    monkeypatch.setattr(os, "walk", deleting)
    assert stored_bytes(tmp_path) == 5
