"""The demo's data and model: nobody shares examples, all is made again from the seed, and training can use it."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from concordat_learning import demo, digits
from concordat_learning.data import Examples, read_examples
from concordat_learning.package import BasePackage

pytestmark = pytest.mark.xdist_group("torch")

ROOT = Path(__file__).resolve().parents[3]
SITES = digits.site_names(digits.SITES)
PACKAGE = BasePackage(digits.INPUT_SHAPE, digits.CLASSES)


@pytest.fixture(scope="module")
def everything() -> Examples:
    return digits.digits()


def parts(split: digits.Partition) -> list[np.ndarray[Any, Any]]:
    return [split.public, split.holdout, *split.train.values(), *split.validation.values()]


@settings(max_examples=20)
@given(st.integers(0, 2**31 - 1))
def test_everybody_has_other_examples_and_all_are_used(seed: int) -> None:
    labels = np.arange(1797) % 10
    split = digits.partition(labels, seed)
    found = np.concatenate(parts(split))
    assert len(found) == len(np.unique(found)) == len(labels)
    assert (len(split.public), len(split.holdout)) == (digits.PUBLIC, digits.HOLDOUT)
    assert min(len(split.train[name]) + len(split.validation[name]) for name in split.train) >= 40


def test_the_seed_decides_the_split(everything: Examples) -> None:
    one, again, other = (digits.partition(everything.labels, seed) for seed in (0, 0, 1))
    assert all(np.array_equal(a, b) for a, b in zip(parts(one), parts(again), strict=True))
    assert not np.array_equal(one.holdout, other.holdout)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_sites_differ_in_their_classes(everything: Examples, seed: int) -> None:
    """Mean distance in total variation between two sites' class shares; a random split of this size has about 0.1."""
    split = digits.partition(everything.labels, seed)
    shares = [np.bincount(everything.labels[i], minlength=10) / len(i) for i in split.train.values()]
    distances = [np.abs(a - b).sum() / 2 for a, b in itertools.combinations(shares, 2)]
    assert np.mean(distances) > 0.3


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"sites": 0}, "sites is 0; it must be 1..26"),
        ({"sites": 40}, "do not give 40 sites 40 examples each"),
        ({"sites": 20, "alpha": 0.1}, "alpha is 0.1: no draw gives every site 40 examples; use a larger one"),
        ({"holdout": 1500}, "do not give 5 sites 40 examples each"),
    ],
)
def test_a_split_that_cannot_be_is_refused(everything: Examples, arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        digits.partition(everything.labels, 0, **arguments)


def test_every_part_is_data_that_jobs_take(tmp_path: Path) -> None:
    """`data` for each party, read as the Jobs read it; no example is in two parts, and all are in one."""
    seen: list[bytes] = []
    for part in (*SITES, digits.EVALUATOR, digits.CANARY):
        assert demo.main(["data", "--part", part, "--out", str(tmp_path / part)]) == 0
        files = sorted(path.name for path in (tmp_path / part).iterdir())
        assert files == [*(["train.safetensors"] if part in SITES else []), "validation.safetensors"]
        for name in files:
            found = read_examples(tmp_path / part / name, PACKAGE)
            seen += [image.tobytes() for image in found.images]
    assert len(seen) == 1797
    # Images are told apart by their pixels: in this data set no two are equal.
    assert len(set(seen)) == len(seen)


def test_data_is_the_same_each_time(tmp_path: Path) -> None:
    for folder, seed in (("a", 3), ("b", 3), ("c", 4)):
        demo.main(["data", "--part", "site-b", "--out", str(tmp_path / folder), "--seed", str(seed)])
    a, b, c = ((tmp_path / folder / "train.safetensors").read_bytes() for folder in "abc")
    assert a == b != c


def test_an_unknown_part_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert demo.main(["data", "--part", "site-z", "--out", str(tmp_path)]) == 64
    assert "part is 'site-z'; it must be one of site-a, site-b" in capsys.readouterr().err


def test_the_base_package_is_made_from_the_seed(tmp_path: Path, everything: Examples) -> None:
    from concordat_learning import demo_model
    from concordat_learning.model import AdaptedModel

    public = everything.take(digits.partition(everything.labels, 0).public)
    for folder in ("a", "b"):
        demo_model.write_base(tmp_path / folder, public, seed=0, steps=3)
    demo_model.write_base(tmp_path / "c", public, seed=1, steps=3)
    for file in ("base/model.safetensors", "adapter/adapter_model.safetensors"):
        a, b, c = ((tmp_path / folder / file).read_bytes() for folder in "abc")
        assert a == b != c, file
    model = AdaptedModel.open(tmp_path / "a" / "base", tmp_path / "a" / "adapter")
    assert not any(tensor.any() for name, tensor in model.tensors().items() if ".lora_B." in name)


def test_reference_compares_on_the_same_holdout() -> None:
    from concordat_learning import demo_reference

    found = demo_reference.reference(seed=0, rounds=1, base_steps=2, steps=1)
    assert (found["seed"], found["rounds"], found["examples"]) == (0, 1, digits.HOLDOUT)
    assert sorted(found["localOnlyPpm"]) == SITES
    assert found["localOnlyMeanPpm"] == round(sum(found["localOnlyPpm"].values()) / 5)
    assert {"parentPpm", "centralizedPpm"} <= found.keys()


def test_reference_needs_a_round(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert demo.main(["reference", "--rounds", "0", "--json", str(tmp_path / "x" / "r.json")]) == 64
    assert "rounds is 0; it must be at least 1" in capsys.readouterr().err


def test_the_reference_trains_as_the_round_does() -> None:
    from concordat_learning import demo_reference

    spec = yaml.safe_load((ROOT / "examples/demo/round.yaml").read_text())["spec"]
    assert spec["budget"]["maxSteps"] == demo_reference.STEPS
    assert spec["recipe"]["batchSize"] == demo_reference.BATCH
    assert float(spec["recipe"]["learningRate"]) == demo_reference.RATE
    assert spec["aggregation"]["lora"] == "Alternating"
    assert [demo_reference.factor_of(number) for number in (1, 2, 3)] == ["B", "A", "B"]
