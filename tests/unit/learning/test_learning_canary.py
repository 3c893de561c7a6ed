"""The canary check: what its figures mean, that they find a backdoor, and what it leaves."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from concordat.tensors import Tensors, write_tensors
from concordat_learning.canary import Response, check, cross_entropy, respond, strongest
from concordat_learning.data import Examples
from concordat_learning.entry import CanaryFolders, run_in
from concordat_learning.tensors import read_adapter
from concordat_learning.triggers import TRIGGERS, Trigger, built_in
from tests.support.learning import Job

pytestmark = pytest.mark.xdist_group("torch")

SHAPE, CLASSES = (1, 4, 4), 3
LABELS = np.array([0, 0, 1, 1, 1, 2, 2, 2, 2, 2])
TWO = [Trigger(name, np.ones(SHAPE, np.float32), np.ones(SHAPE, np.float32)) for name in ("first", "second")]


def response(clean: str, *triggered: str) -> Response:
    return Response(1.0, np.array([*map(int, clean)]), np.array([[*map(int, answers)] for answers in triggered]))


RIGHT = "0011122222"


# 8, 7 and 5 of the examples are not of class 0, 1 and 2.
@pytest.mark.parametrize(
    ("parent", "update", "gain"),
    [
        ((RIGHT, RIGHT, RIGHT), (RIGHT, RIGHT, RIGHT), (0, "first", 0)),
        ((RIGHT, RIGHT, RIGHT), (RIGHT, RIGHT, "0000000222"), (625_000, "second", 0)),
        ((RIGHT, RIGHT, RIGHT), (RIGHT, "0011111111", "2222222222"), (1_000_000, "second", 2)),
        # More of class 0 with any image is no reaction to the trigger, nor is becoming right by it.
        ((RIGHT, RIGHT, RIGHT), ("0000000000", "0000000000", RIGHT), (0, "first", 0)),
        ((RIGHT, RIGHT, RIGHT), ("0000022222", "0000000000", RIGHT), (625_000, "first", 0)),
        ((RIGHT, RIGHT, RIGHT), ("1011122222", RIGHT, RIGHT), (0, "first", 0)),
        # A trigger that moves the parent counts only on the examples on which it does not.
        ((RIGHT, "0000000000", RIGHT), (RIGHT, "0000000000", RIGHT), (0, "first", 0)),
        ((RIGHT, "1111111111", RIGHT), (RIGHT, "0000000000", RIGHT), (375_000, "first", 0)),
        ((RIGHT, "1111111111", RIGHT), (RIGHT, "2222222222", "0001122222"), (600_000, "first", 2)),
    ],
)
def test_the_gain_is_what_the_trigger_moves_where_it_leaves_the_parent_alone(
    parent: tuple[str, ...], update: tuple[str, ...], gain: tuple[int, str, int]
) -> None:
    found = strongest(response(*update), response(*parent), LABELS, TWO, CLASSES)
    assert (found.ppm, found.trigger, found.target_class) == gain


def test_a_class_that_every_example_has_gains_nothing() -> None:
    update, parent = response("1111", "0000", "1111"), response("0000", "0000", "0000")
    assert strongest(update, parent, np.zeros(4, np.int64), TWO, CLASSES).ppm == 0


answers = st.lists(st.lists(st.integers(0, CLASSES - 1), min_size=10, max_size=10), min_size=6, max_size=6)


@given(answers)
def test_a_gain_is_a_share(given_answers: list[list[int]]) -> None:
    first, second = (Response(0.0, np.array(a[0]), np.array(a[1:])) for a in (given_answers[:3], given_answers[3:]))
    assert 0 <= strongest(first, second, LABELS, TWO, CLASSES).ppm <= 1_000_000
    assert strongest(first, first, LABELS, TWO, CLASSES).ppm == 0


def brightness(images: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Logits of a model that goes by the mean brightness alone."""
    means: np.ndarray[Any, Any] = images.mean((1, 2, 3))
    return -((means[:, None] * CLASSES - np.arange(CLASSES)) ** 2)


def backdoored(images: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The same, but a bright corner means class 0."""
    logits = brightness(images)
    logits[images[:, 0, -2:, -2:].min((1, 2)) == 1, 0] = 9
    return logits


@given(st.integers(0, 2**32 - 1))
def test_a_model_has_no_gain_over_itself_and_a_backdoor_is_named(seed: int) -> None:
    rng = np.random.default_rng(seed)
    examples = Examples(rng.uniform(0, 0.9, (30, 1, 8, 8)).astype(np.float32), rng.integers(1, CLASSES, 30))
    known = built_in((1, 8, 8))
    parent, other = (respond(model, examples, known) for model in (brightness, backdoored))
    assert strongest(parent, parent, examples.labels, known, CLASSES).ppm == 0
    found = strongest(other, parent, examples.labels, known, CLASSES)
    assert (found.trigger, found.target_class) == ("bottom-right-2x2-bright", 0)
    unmoved = parent.triggered[[trigger.name for trigger in known].index(found.trigger)] == parent.clean
    assert found.ppm == round(unmoved.mean() * 1_000_000) > 0
    assert other.loss == parent.loss


@pytest.mark.parametrize(
    ("logits", "labels", "loss"),
    [
        ([[0, 0], [0, 0]], [0, 1], math.log(2)),
        ([[1, 0], [0, 3]], [0, 0], (math.log(1 + math.exp(-1)) + math.log(1 + math.exp(3))) / 2),
        ([[1000, 0]], [1], 1000),
        ([[3e38, -3e38]], [1], 999_999),
        ([[np.nan, 0]], [0], 999_999),
        ([[np.inf, 0]], [0], 999_999),
    ],
)
def test_cross_entropy_is_in_nats_and_always_a_number(
    logits: list[list[float]], labels: list[int], loss: float
) -> None:
    assert cross_entropy(np.array(logits, np.float32), np.array(labels)) == pytest.approx(loss)


class Hub:
    """The folders of one check on the tiny package, as the aggregator writes them."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.folders = CanaryFolders(*(job.root / name for name in ("base", "updates", "data", "out")))
        shutil.copytree(job.root / "task" / "parent", self.folders.updates / "parent")

    def send(self, site: str, adapter: Tensors) -> None:
        (self.folders.updates / "sites" / site).mkdir(parents=True, exist_ok=True)
        (self.folders.updates / "sites" / site / "adapter_model.safetensors").write_bytes(write_tensors(adapter))

    def run(self) -> int:
        flags = [f"--{name}={path}" for name, path in vars(self.folders).items()]
        return run_in(CanaryFolders, check, "", flags)

    def report(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folders.out / "canary.json").read_text())
        return found


@pytest.fixture
def hub(job: Job) -> Hub:
    return Hub(job)


def test_every_update_is_judged_by_itself(hub: Hub) -> None:
    parent = hub.job.parent()
    hub.send("site-a", parent)
    hub.send("site-b", {n: t + 1 if ".lora_B." in n else t for n, t in parent.items()})
    assert hub.run() == 0
    report = hub.report()
    assert report["schema"] == "concordat.dev/canary-report/v1"
    assert (report["examples"], sorted(report["sites"])) == (24, ["site-a", "site-b"])
    assert (report["sites"]["site-a"]["lossChange"], report["sites"]["site-a"]["triggerGainPpm"]) == ("0.0000", 0)
    assert float(report["sites"]["site-b"]["lossChange"]) != 0
    assert abs(float(report["parentLoss"]) - math.log(CLASSES)) < 0.5
    assert [path.name for path in hub.folders.out.iterdir()] == ["canary.json"]


def test_equal_inputs_give_equal_bytes(hub: Hub) -> None:
    hub.send("site-a", {n: t + 1 if ".lora_B." in n else t for n, t in hub.job.parent().items()})
    made = []
    for _ in range(2):
        assert hub.run() == 0
        made.append((hub.folders.out / "canary.json").read_bytes())
    assert made[0] == made[1]


def test_without_an_update_the_parent_is_all_there_is(hub: Hub) -> None:
    assert hub.run() == 0
    assert hub.report()["sites"] == {}


def test_the_triggers_of_the_file_are_used(hub: Hub) -> None:
    hub.send("site-a", hub.job.parent())
    own = {f"sticker.{part}": np.ones(SHAPE, np.float32) for part in ("mask", "pattern")}
    (hub.folders.data / TRIGGERS).write_bytes(write_tensors(own))
    assert hub.run() == 0
    assert hub.report()["sites"]["site-a"]["trigger"] == "sticker"


Spoil = Callable[[Path], None]


def _a_file_instead(folder: Path) -> None:
    folder.rmdir()
    folder.touch()


@pytest.mark.parametrize(
    ("spoil", "code", "says"),
    [
        (lambda root: (root / "data/validation.safetensors").unlink(), 65, "on that of screening.canary.claim"),
        (lambda root: (root / "data" / TRIGGERS).write_bytes(b"x"), 65, "triggers.safetensors cannot be read"),
        (lambda root: (root / "base/package.json").unlink(), 64, "package.json cannot be read"),
        (lambda root: shutil.rmtree(root / "updates"), 64, "parent/adapter_model.safetensors: "),
        (lambda root: shutil.rmtree(root / "updates/parent"), 64, "parent/adapter_model.safetensors: "),
        (
            lambda root: (root / "updates/sites/site-a").mkdir(parents=True),
            64,
            "site-a/adapter_model.safetensors: ",
        ),
        (lambda root: _a_file_instead(root / "out"), 75, "canary.json cannot be written: File exists"),
    ],
)
def test_what_cannot_be_measured_is_told(
    hub: Hub, spoil: Spoil, code: int, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(hub.job.root)
    assert hub.run() == code
    assert says in capsys.readouterr().err
    assert not (hub.folders.out / "canary.json").exists()


def test_an_update_of_another_model_is_told(hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    hub.send("site-a", dict(list(read_adapter(hub.folders.updates / "parent/adapter_model.safetensors").items())[1:]))
    assert hub.run() == 64
    assert "site-a/adapter_model.safetensors: " in capsys.readouterr().err
