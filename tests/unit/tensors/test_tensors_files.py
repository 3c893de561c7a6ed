"""The safetensors reader refuses what lies, and agrees with the reference implementation on what does not."""

from __future__ import annotations

import json
import pickle
import struct
import tempfile
import tracemalloc
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from concordat.tensors import (
    FLOATS,
    FormError,
    TensorError,
    map_tensors,
    read_tensors,
    save_tensors,
    shown,
    write_tensors,
)

_names = st.text(min_size=1, max_size=20).filter(lambda n: n != "__metadata__" and n.isprintable())
_shapes = hnp.array_shapes(min_dims=0, max_dims=3, max_side=4)
_tensors = st.dictionaries(_names, hnp.arrays(np.float32, _shapes), max_size=4)


def _file(header: Any, body: bytes = b"") -> bytes:
    head = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(head)) + head + body


def _entry(shape: Any = (2,), offsets: Any = (0, 8), dtype: Any = "F32", **more: Any) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets, **more}


@given(_tensors)
def test_what_is_written_is_read_bit_for_bit(tensors: dict[str, NDArray[np.float32]]) -> None:
    data = write_tensors(tensors)
    for read in (read_tensors(data), safetensors.numpy.load(data)):
        assert read.keys() == tensors.keys()
        for name, tensor in tensors.items():
            assert read[name].shape == tensor.shape
            assert read[name].tobytes() == tensor.tobytes()


@given(_tensors)
def test_the_order_of_tensors_does_not_change_the_bytes(tensors: dict[str, NDArray[np.float32]]) -> None:
    assert write_tensors(dict(reversed(tensors.items()))) == write_tensors(tensors)


@given(
    st.dictionaries(_names, hnp.arrays(np.float32, hnp.array_shapes(max_dims=3, max_side=4)), min_size=1, max_size=4)
)
def test_what_is_saved_is_read(tensors: dict[str, NDArray[Any]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "t"
        save_tensors(path, {name: np.asfortranarray(tensor) for name, tensor in tensors.items()})
        found, mapped = read_tensors(path), map_tensors(path)
        assert found.keys() == mapped.keys() == tensors.keys()
        for name, tensor in tensors.items():
            assert found[name].tobytes() == mapped[name].tobytes() == tensor.tobytes()
            assert found[name].shape == mapped[name].shape == tensor.shape


@given(_tensors, st.data())
def test_damaged_files_raise_tensor_error_or_are_files_for_the_reference_too(
    tensors: dict[str, NDArray[np.float32]], data: st.DataObject
) -> None:
    good = bytearray(write_tensors(tensors))
    for _ in range(data.draw(st.integers(1, 3))):
        good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(good[: data.draw(st.integers(0, len(good)))])
    try:
        read = read_tensors(cut)
    except TensorError:
        return
    assert read.keys() == safetensors.numpy.load(cut).keys()


@given(st.binary(max_size=200))
def test_any_bytes_raise_only_tensor_error(data: bytes) -> None:
    # Two hundred bytes hold a valid file only by a miracle.
    with pytest.raises(TensorError) as raised:
        read_tensors(data)
    assert str(raised.value).isascii()


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "truncated"),
        (b"\x01", "truncated"),
        (struct.pack("<Q", 2**64 - 1) + b"{}", "truncated"),
        (_file(b"[]"), "not safetensors"),
        (_file(b" {}"), "not safetensors"),
        (_file(b"{"), "not JSON"),
        (_file(b'{"\xff":1}'), "not JSON"),
        (_file(b'{"a":' * 50_000), "not JSON"),
        (_file(b'{"a":1' + b"0" * 5000 + b"}"), "not JSON"),
        (_file(b'{"a":1,"a":1}'), "twice"),
        (_file(b"{" + b" " * (8 << 20) + b"}"), "at most 8388608"),
        (_file({"a": []}), "dtype, shape and data_offsets"),
        (_file({"a": _entry(more=1)}, b"\0" * 8), "nothing else"),
        (_file({"a": _entry(dtype=["F32"])}, b"\0" * 8), "dtype"),
        (_file({"a": _entry([2, 1.0])}, b"\0" * 8), "short list"),
        (_file({"a": _entry([True, 2])}, b"\0" * 8), "short list"),
        (_file({"a": _entry([-2])}, b"\0" * 8), "short list"),
        (_file({"a": _entry([1] * 9, [0, 4])}, b"\0" * 4), "short list"),
        (_file({"a": _entry([0], [0, 0])}), "empty"),
        (_file({"a": _entry([0, 2**39, 2**39], [0, 0])}), "empty"),
        (_file({"a": _entry([2], [0, 8, 8])}, b"\0" * 8), "short list"),
        (_file({"a": _entry([2], [8, 0])}, b"\0" * 8), "do not hold"),
        (_file({"a": _entry([3])}, b"\0" * 8), "do not hold the shape"),
        (_file({"a": _entry([2**39, 2**39])}, b"\0" * 8), "do not hold the shape"),
        (_file({"a": _entry([2**38], [0, 2**40 - 1])}, b"\0" * 8), "do not hold the shape"),
        (_file({"a": _entry([2**37], [0, 2**39])}, b"\0" * 8), "truncated or lying"),
        (_file({"a": _entry()}, b"\0" * 7), "truncated"),
        (_file({"a": _entry()}, b"\0" * 9), "padded"),
        (_file({"a": _entry(offsets=[4, 12])}, b"\0" * 12), "gap"),
        (_file({"a": _entry(), "b": _entry(offsets=[4, 12])}, b"\0" * 12), "overlap"),
        (_file({"a": _entry(), "b": _entry()}, b"\0" * 8), "overlap"),
        (_file({"__metadata__": {"a": 1}}), "__metadata__"),
        (pickle.dumps({"a": [1.0]}), "pickled"),
        (b"PK\x03\x04" + b"\0" * 100, "pickled or zipped"),
    ],
)
def test_a_lying_file_is_refused_with_the_reason(data: bytes, says: str, tmp_path: Path) -> None:
    with pytest.raises(TensorError, match=says):
        read_tensors(data)
    path = tmp_path / "a.safetensors"
    path.write_bytes(data)
    with pytest.raises(TensorError, match=says):
        map_tensors(path)


def test_a_header_of_128_bytes_is_no_pickle() -> None:
    head = json.dumps({"a": _entry()}).encode().ljust(128)
    assert list(read_tensors(_file(head, b"\0" * 8))) == ["a"]


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.int32, np.uint8, np.bool_])
def test_only_float32_is_accepted_unless_asked(dtype: Any) -> None:
    with pytest.raises(FormError, match="expected F32"):
        read_tensors(write_tensors({"a": np.ones(2, dtype)}))


@given(hnp.arrays(np.float16, (5,)))
def test_float16_is_widened_exactly(values: NDArray[np.float16]) -> None:
    read = read_tensors(write_tensors({"a": values}), dtypes=FLOATS)["a"]
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read, values.astype(np.float32))


@given(st.lists(st.integers(0, 2**16 - 1), min_size=1, max_size=5))
def test_bfloat16_is_widened_exactly(bits: list[int]) -> None:
    body = struct.pack(f"<{len(bits)}H", *bits)
    read = read_tensors(_file({"a": _entry([len(bits)], [0, len(body)], "BF16")}, body), dtypes=FLOATS)["a"]
    assert [int(b) for b in read.view(np.uint32)] == [b << 16 for b in bits]


def test_a_file_on_disk_is_read_up_to_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(write_tensors({"a": np.ones(2, np.float32)}))
    size = path.stat().st_size
    assert list(read_tensors(path, limit=size)) == ["a"]
    with pytest.raises(TensorError, match=f"at most {size - 1} are accepted"):
        read_tensors(path, limit=size - 1)


@given(st.dictionaries(_names, st.sampled_from([np.float32, np.float16, ml_dtypes.bfloat16]), max_size=4), _shapes)
def test_mapped_tensors_are_those_that_were_written(dtypes: dict[str, Any], shape: tuple[int, ...]) -> None:
    random = np.random.default_rng(0)
    tensors = {name: np.asarray(random.normal(size=shape), dtype=dtype) for name, dtype in dtypes.items()}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.safetensors"
        path.write_bytes(write_tensors(tensors))
        mapped = map_tensors(path, FLOATS)
    assert mapped.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert (mapped[name].dtype, mapped[name].shape) == (tensor.dtype, tensor.shape)
        assert mapped[name].tobytes() == tensor.tobytes()
        assert not mapped[name].flags.writeable


def test_a_mapped_file_is_not_read_before_it_is_used(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    head = json.dumps({"a": _entry([2**28], [0, 2**30])}).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(head)) + head)
        file.truncate(8 + len(head) + 2**30)
    tracemalloc.start()
    try:
        mapped = map_tensors(path)["a"]
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
    assert mapped[-1] == 0
    assert mapped.nbytes == 2**30


def test_a_header_that_claims_two_gigabytes_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    with path.open("wb") as file:
        file.write(struct.pack("<Q", 2**31) + b"{")
        file.truncate(2**31 + 8)
    with pytest.raises(TensorError, match="the header has 2147483648 bytes; at most 8388608"):
        map_tensors(path)


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.int32])
def test_only_float32_is_mapped_unless_asked(dtype: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(write_tensors({"a": np.ones(2, dtype)}))
    with pytest.raises(FormError, match="expected F32"):
        map_tensors(path)


@given(st.text(), st.integers(1, 200))
def test_shown_text_is_printable_ascii_and_bounded(text: str, most: int) -> None:
    once = shown(text, most)
    assert once.isascii()
    assert len(once) <= most
    assert once == "" or once.isprintable()
    assert shown(once, most) == once
