"""The hub's canary check: `python -m concordat_learning.canary --base … --updates … --data … --out …`.

What every update does by itself: the parent with that update against the parent alone, on examples of the hub. Unlike
a site's Jobs it does not prove that it has no network: it runs in the hub's aggregator pod, which reaches the
registry, and it reads no site's data.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from concordat.protocol.artifact_types import ADAPTER_FILE
from concordat.protocol.canary import SITES, CanaryReport, CanaryResponse
from concordat.protocol.locations import PARENT_FOLDER
from concordat_learning import results
from concordat_learning.data import VALIDATION, Examples, read_examples
from concordat_learning.entry import CanaryFolders, run_in
from concordat_learning.errors import InputError
from concordat_learning.intervals import MILLION
from concordat_learning.package import read_package
from concordat_learning.tensors import read_adapter
from concordat_learning.triggers import Trigger, triggers

# The largest number the API's decimals hold.
_LARGEST = 999_999.0

Logits = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""Logits [n, classes] of images [n, channels, height, width]."""


@dataclass(frozen=True)
class Response:
    """How one model answers the examples."""

    loss: float
    """Mean cross entropy in nats, without a trigger; 999999 where it is larger or not a number."""
    clean: NDArray[np.int64]
    """The class it answers, for each example [n]."""
    triggered: NDArray[np.int64]
    """The same with each trigger [triggers, n]."""


@dataclass(frozen=True)
class Gain:
    """The strongest reaction of an update to a trigger."""

    ppm: int
    """0..1,000,000; 0 if there is none."""
    trigger: str
    target_class: int


def check(folders: CanaryFolders) -> None:
    """Measure every update in the folder and write canary.json. Raises InputError and DataError."""
    package = read_package(folders.base)
    examples = read_examples(folders.data / VALIDATION, package)
    known = triggers(folders.data, package)
    sites = _sites(folders)
    # Only now: wrong inputs are told without waiting for the import.
    from concordat_learning.model import AdaptedModel

    model = AdaptedModel.open(folders.base, folders.updates / PARENT_FOLDER)
    parent = respond(model.logits, examples, known)
    responses: dict[str, CanaryResponse] = {}
    for site in sites:
        path = folders.updates / SITES / site / ADAPTER_FILE
        model.load(read_adapter(path), str(path))
        found = respond(model.logits, examples, known)
        worst = strongest(found, parent, examples.labels, known, package.classes)
        responses[site] = CanaryResponse(
            loss_change=_decimal(found.loss - parent.loss),
            trigger_gain_ppm=worst.ppm,
            trigger=worst.trigger,
            target_class=worst.target_class,
        )
        print(
            f"{site}: loss {found.loss - parent.loss:+.4f}, {worst.ppm} ppm to {worst.target_class} by {worst.trigger}",
            flush=True,
        )
    report = CanaryReport(examples=len(examples), parent_loss=_decimal(parent.loss), sites=responses)
    results.write_file(folders.out / report.FILE, report.to_bytes())


def respond(logits: Logits, examples: Examples, known: list[Trigger]) -> Response:
    """Let a model answer the examples, without and with every trigger."""
    clean = logits(examples.images)
    return Response(
        loss=cross_entropy(clean, examples.labels),
        clean=clean.argmax(1),
        triggered=np.stack([logits(trigger.stamp(examples.images)).argmax(1) for trigger in known]),
    )


def strongest(
    update: Response, parent: Response, labels: NDArray[np.int64], known: list[Trigger], classes: int
) -> Gain:
    """Return the trigger t and class c by which the update moves the largest share of the examples of other classes.

    gain = P(u(x + t) = c and the parent is unmoved) − P(u(x) = c and the parent is unmoved), over the examples x that
    are not of class c; unmoved is parent(x + t) = parent(x). The second term is there because a site with few classes
    predicts those more often with any image. And a trigger that moves the parent as well hides what is in the image:
    then every update guesses, each its own class.
    """
    others = len(labels) - np.bincount(labels, minlength=classes)

    def taken_for(answers: NDArray[np.int64], among: NDArray[np.bool_]) -> NDArray[np.int64]:
        return np.bincount(answers[among & (answers != labels)], minlength=classes)

    unmoved = parent.triggered == parent.clean
    moved = np.stack(
        [taken_for(a, same) - taken_for(update.clean, same) for a, same in zip(update.triggered, unmoved, strict=True)]
    )
    # A class that all examples have has nobody to win over: moved is 0 there.
    gains = moved / np.maximum(others, 1)
    trigger, target = divmod(int(gains.argmax()), classes)
    ppm = round(max(float(gains[trigger, target]), 0) * MILLION)
    return Gain(ppm=ppm, trigger=known[trigger].name, target_class=target)


def cross_entropy(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """Mean cross entropy in nats of logits [n, classes], at most 999999, which also stands for not a number."""
    with np.errstate(over="ignore", invalid="ignore"):
        exact = logits.astype(np.float64)
        shifted = exact - exact.max(1, keepdims=True)
        loss = float((np.log(np.exp(shifted).sum(1)) - shifted[np.arange(len(labels)), labels]).mean())
    return min(loss, _LARGEST) if np.isfinite(loss) else _LARGEST


def _sites(folders: CanaryFolders) -> list[str]:
    try:
        return sorted(entry.name for entry in (folders.updates / SITES).iterdir())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise InputError(f"{folders.updates} cannot be read: {error.strerror}; the aggregator writes it") from None


def _decimal(value: float) -> str:
    # Adding 0 keeps "-0.0000" out.
    return f"{round(value, 4) + 0.0:.4f}"


if __name__ == "__main__":
    sys.exit(run_in(CanaryFolders, check, "Measure what each update does by itself, on examples of the hub."))
