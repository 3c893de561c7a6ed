"""Updates as rows: what fits together, where a column lies, and what is read of it."""

from __future__ import annotations

import math
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from concordat.aggregation import AggregationError, Rows

DTYPES = [np.float32, np.float16, ml_dtypes.bfloat16]
_shapes = st.dictionaries(
    st.text("abc", min_size=1, max_size=3),
    hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5),
    min_size=1,
    max_size=6,
).filter(lambda shapes: any(math.prod(shape) for shape in shapes.values()))


@st.composite
def _updates(draw: st.DrawFn) -> list[dict[str, NDArray[Any]]]:
    shapes, n = draw(_shapes), draw(st.integers(1, 4))
    random = np.random.default_rng(draw(st.integers(0, 99)))
    dtypes = {name: draw(st.sampled_from(DTYPES)) for name in shapes}
    updates = [
        {name: random.normal(size=shape).astype(dtypes[name]) for name, shape in shapes.items()} for _ in range(n)
    ]
    return [_in_one_buffer(update, draw(st.booleans())) if draw(st.booleans()) else update for update in updates]


def _in_one_buffer(update: dict[str, NDArray[Any]], ordered: bool) -> dict[str, NDArray[Any]]:
    """The same values one behind the other, as in a mapped file: in the order of the names, or against it."""
    names = sorted(update, reverse=not ordered)
    # Half precision first would leave float32 at odd places, which is allowed too.
    buffer, at, out = bytearray(b"".join(update[name].tobytes() for name in names)), 0, {}
    for name in names:
        tensor = update[name]
        out[name] = np.ndarray(tensor.shape, tensor.dtype, buffer, at)
        at += tensor.nbytes
    return out


def _matrix(updates: list[dict[str, NDArray[Any]]]) -> NDArray[np.float32]:
    return np.array([np.concatenate([u[name].astype(np.float32).reshape(-1) for name in sorted(u)]) for u in updates])


@given(_updates(), st.data())
def test_any_columns_are_read_as_float32(updates: list[dict[str, NDArray[Any]]], data: st.DataObject) -> None:
    rows, wanted = Rows(updates), _matrix(updates)
    assert (rows.n, rows.size) == wanted.shape
    begin = data.draw(st.integers(0, rows.size - 1))
    end = data.draw(st.integers(begin + 1, rows.size))
    for out in (np.empty((rows.n, end - begin), np.float32), np.empty((end - begin, rows.n), np.float64).T):
        rows.fill(begin, end, out)
        np.testing.assert_array_equal(out, wanted[:, begin:end])
    for row in range(rows.n):
        piece = rows.piece(row, begin, end, np.empty(rows.size, np.float32))
        np.testing.assert_array_equal(piece, wanted[row, begin:end])


@given(_updates(), st.integers(1, 40), st.integers(1, 40))
def test_spans_cover_every_column_once(updates: list[dict[str, NDArray[Any]]], least: int, more: int) -> None:
    spans = Rows(updates).spans(least + more, least)
    assert [begin for begin, _ in spans] == [0, *(end for _, end in spans[:-1])]
    assert spans[-1][1] == Rows(updates).size
    assert all(0 < end - begin <= least + more for begin, end in spans)


def test_spans_end_with_tensors_where_that_costs_little() -> None:
    rows = Rows([{"a": np.ones(100, np.float32), "b": np.ones(30, np.float32), "c": np.ones(10, np.float32)}])
    assert rows.spans(64, 32) == [(0, 64), (64, 100), (100, 140)]
    assert rows.spans(64, 30) == [(0, 64), (64, 100), (100, 130), (130, 140)]


@given(_updates())
def test_a_vector_goes_back_into_the_shapes(updates: list[dict[str, NDArray[Any]]]) -> None:
    rows = Rows(updates)
    tensors = rows.tensors(_matrix(updates)[0])
    assert {name: tensor.shape for name, tensor in tensors.items()} == {n: t.shape for n, t in updates[0].items()}
    np.testing.assert_array_equal(_matrix([tensors])[0], _matrix(updates)[0])


def test_a_choice_of_rows_keeps_their_order() -> None:
    rows = Rows([{"x": np.full(2, i, np.float32)} for i in range(4)]).select([3, 1])
    out = np.empty((2, 2), np.float32)
    rows.fill(0, 2, out)
    assert out.tolist() == [[3, 3], [1, 1]]
    with pytest.raises(AggregationError, match="no update"):
        rows.select([])


def test_nothing_is_copied_that_lies_in_order() -> None:
    x = np.ones((3, 4), np.float32)
    piece = Rows([{"x": x}]).piece(0, 2, 9, np.empty(12, np.float32))
    assert np.shares_memory(piece, x)


def test_tensors_one_behind_the_other_are_read_as_one_and_only_where_all_updates_have_them_so() -> None:
    apart = {"a": np.ones((3, 4), np.float32), "b": np.ones(5, np.float32)}
    rows = Rows([_in_one_buffer(apart, ordered=True) for _ in range(2)])
    space = np.empty(17, np.float32)
    assert not np.shares_memory(rows.piece(1, 2, 17, space), space)
    assert np.shares_memory(Rows([_in_one_buffer(apart, ordered=True), apart]).piece(0, 2, 17, space), space)


def test_a_transposed_tensor_is_read_in_the_order_of_its_shape() -> None:
    x = np.arange(6, dtype=np.float32).reshape(2, 3).T
    assert Rows([{"x": x}]).piece(0, 0, 6, np.empty(6, np.float32)).tolist() == [0, 3, 1, 4, 2, 5]


@pytest.mark.parametrize(
    ("updates", "says"),
    [
        ([], "no update to aggregate"),
        ([{}], "no values"),
        ([{"x": np.zeros((0, 3), np.float32)}], "no values"),
        ([{"x": np.zeros(2, np.float32)}, {"y": np.zeros(2, np.float32)}], "x is in update 0 and not in update 1"),
        ([{}, {}, {"y\n": np.zeros(2, np.float32)}], r"y\\x0a is in update 2 and not in update 0"),
        (
            [{"x": np.zeros(2, np.float32)}, {"x": np.zeros((1, 2), np.float32)}],
            r"x has \[1, 2\] in update 1 and \[2\]",
        ),
        (
            [{"x": np.zeros(2, np.float32)}, {"x": np.zeros(2)}],
            "update 1: tensor x has dtype float64, expected float32",
        ),
        ([{"x": np.zeros(2, np.int32)}], "dtype int32"),
        ([{"x": np.zeros(2, ">f4")}], "dtype >f4"),
    ],
)
def test_updates_that_do_not_fit_are_refused(updates: Any, says: str) -> None:
    with pytest.raises(AggregationError, match=says):
        Rows(updates)


def test_a_reference_must_fit_too() -> None:
    rows = Rows([{"x": np.zeros(2, np.float32)}])
    assert rows.joined({"x": np.ones(2, np.float16)}).n == 2
    for bad, says in [
        ({"y": np.zeros(2)}, "in update 0 and not in the reference"),
        ({"x": np.zeros(2)}, "the reference"),
    ]:
        with pytest.raises(AggregationError, match=says):
            rows.joined(bad)
