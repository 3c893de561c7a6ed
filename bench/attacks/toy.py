"""The toy federation: 16 sites train a LoRA adapter of a small frozen network on handwritten digits.

The base network, 64-64-10 with ReLU, is trained on 20 examples and frozen: it gets about half of the digits right. Each
layer has an adapter B·A of rank 8; A is frozen with orthonormal rows, so the Frobenius norm of a change of B is that of
the change of the weights. An update is the change of both B, flat, float32 (P,) with P = 592. All sites, under several
defences at once, are trained together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from bench.attacks.hostile import Floats, Poison
from concordat.screening import Functional
from concordat_learning.canary import Response, cross_entropy, strongest
from concordat_learning.intervals import MILLION
from concordat_learning.triggers import Trigger, built_in

SITES, HOSTILE, ROUNDS, STEPS, BATCH = 16, 3, 60, 5, 16
"""The hostile sites are the first by name: of two duplicates, screening keeps theirs."""
RATE = np.float32(1.0)
TARGET = 0
"""The class that a backdoor aims at."""
SUITE = tuple(built_in((1, 8, 8)))
"""The triggers that the hub tries: those of concordat_learning.canary."""

_HIDDEN, _RANK, _CLASSES, _PIXELS = 64, 8, 10, 64
_FIRST = _HIDDEN * _RANK
SIZE = _FIRST + _CLASSES * _RANK
_PRETRAIN, _CANARY, _TEST = 20, 100, 500
_LEAST_EXAMPLES = 10

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Base:
    """The frozen weights: layers (w, b) and the A of their adapters."""

    w1: Floats
    b1: Floats
    w2: Floats
    b2: Floats
    a1: Floats
    a2: Floats

    def logits(self, adapters: Floats, images: Floats) -> Floats:
        """(..., m, 10) of adapters (..., P) on images (m, 64)."""
        return self.finish(adapters, images @ self.a1.T, images @ self.w1.T + self.b1)

    def finish(self, adapters: Floats, low: Floats, before: Floats) -> Floats:
        """The same from what does not depend on the adapter: A₁x (m, 8) and W₁x + b₁ (m, 64)."""
        first, second = factors(adapters)
        hidden = np.maximum(low @ first.swapaxes(-1, -2) + before, 0)
        return np.asarray(hidden @ (self.w2 + second @ self.a2).swapaxes(-1, -2) + self.b2)


def factors(adapters: Floats) -> tuple[Floats, Floats]:
    """Both B of flat adapters (..., P): (..., 64, 8) and (..., 10, 8). Views."""
    lead = adapters.shape[:-1]
    return (
        adapters[..., :_FIRST].reshape(*lead, _HIDDEN, _RANK),
        adapters[..., _FIRST:].reshape(*lead, _CLASSES, _RANK),
    )


@dataclass(frozen=True)
class Federation:
    """One draw of the base, of who has which examples, and of every batch."""

    base: Base
    images: Floats
    """(4m, 64): what the sites can train on; the examples as they are, with labels y → 9 − y, with the known trigger
    and with the unlisted one, the last two labelled TARGET."""
    labels: Ints
    batches: Ints
    """(ROUNDS, STEPS, SITES + 1, BATCH): rows of `images`; the last column is the hub's own training, for FLTrust."""
    stolen: Ints
    """(ROUNDS, STEPS, HOSTILE, BATCH / 2): examples, of any site, that a backdoor stamps."""
    known: Trigger
    """One of SUITE: of the bright corners, the one that the frozen A sees best. The attackers know A."""
    unlisted: Trigger
    """In no suite: four bright pixels of the left and right edges, chosen likewise."""
    canary: tuple[Floats, Ints]
    """The hub's own examples."""
    test: tuple[Floats, Ints]

    @cached_property
    def _prepared(self) -> tuple[Floats, Floats]:
        return self.images @ self.base.a1.T, self.images @ self.base.w1.T + self.base.b1

    def batch(self, number: int, poison: Poison) -> Ints:
        """The rows of round `number` (STEPS, SITES + 1, BATCH), where the hostile sites poison theirs."""
        rows: Ints = self.batches[number].copy()
        block = len(self.images) // 4
        if poison is Poison.LABELS:
            rows[:, :HOSTILE] += block
        elif poison is not Poison.NOTHING:
            stamped = block * (2 if poison is Poison.TRIGGER else 3)
            rows[:, :HOSTILE, : BATCH // 2] = self.stolen[number] + stamped
        return rows

    def train(self, parents: Floats, batch: Ints) -> Floats:
        """Local SGD: parents (R, P) and a batch of `batch` → updates (R, SITES + 1, P)."""
        base, (low_all, before_all) = self.base, self._prepared
        local = np.repeat(parents[:, None], batch.shape[1], axis=1)
        first, second = factors(local)
        for rows in batch:
            low, wanted = low_all[rows], np.eye(_CLASSES, dtype=np.float32)[self.labels[rows]]
            hidden = low @ first.swapaxes(-1, -2)
            hidden += before_all[rows]
            np.maximum(hidden, 0, out=hidden)
            head = base.w2 + second @ base.a2
            slope = _softmax(hidden @ head.swapaxes(-1, -2) + base.b2)
            slope -= wanted
            slope *= RATE / rows.shape[-1]
            change = slope.swapaxes(-1, -2) @ (hidden @ base.a2.T)
            back = slope @ head
            back *= hidden > 0
            first -= back.swapaxes(-1, -2) @ low
            second -= change
        return np.asarray(local - parents[:, None])

    def accuracy(self, adapters: Floats) -> NDArray[np.float64]:
        """(R,): share of the test examples that adapters (R, P) get right."""
        images, labels = self.test
        return np.asarray((self.base.logits(adapters, images).argmax(-1) == labels).mean(-1))

    def success(self, adapters: Floats, trigger: Trigger) -> NDArray[np.float64]:
        """(R,): share of the test examples of other classes that the trigger turns to TARGET."""
        images, labels = self.test
        stamped = _stamp(trigger, images[labels != TARGET])
        return np.asarray((self.base.logits(adapters, stamped).argmax(-1) == TARGET).mean(-1))

    def functional(self, parent: Floats, updates: Floats) -> list[Functional]:
        """Screening step 8 of updates (n, P): what concordat_learning.canary finds, with the hub's suite."""
        (images, labels), (low, before) = self.canary, self._stamped
        logits = self.base.finish(np.vstack([parent, parent + updates]), low, before)
        answers = logits.argmax(-1).reshape(len(logits), -1, len(images))
        responses = [
            Response(cross_entropy(clean, labels), own[0], own[1:])
            for clean, own in zip(logits[:, : len(images)], answers, strict=True)
        ]
        before_it, *after = responses
        gains = [strongest(found, before_it, labels, list(SUITE), _CLASSES) for found in after]
        return [
            Functional(found.loss - before_it.loss, gain.ppm / MILLION, gain.trigger)
            for found, gain in zip(after, gains, strict=True)
        ]

    @cached_property
    def _stamped(self) -> tuple[Floats, Floats]:
        """The canary examples without and with every trigger, as `Base.finish` takes them."""
        images = np.concatenate([self.canary[0], *(_stamp(trigger, self.canary[0]) for trigger in SUITE)])
        return images @ self.base.a1.T, images @ self.base.w1.T + self.base.b1


def make(alpha: float, seed: int) -> Federation:
    """A federation whose sites hold classes by Dirichlet(alpha) shares; infinite: all the same (Hsu et al., 2019)."""
    # Here, as it takes seconds: whoever collects the tests waits for it otherwise.
    from sklearn.datasets import load_digits

    rng = np.random.default_rng(seed)
    images, labels = load_digits(return_X_y=True)
    order = rng.permutation(len(images))
    images, labels = (images[order] / 16).astype(np.float32), labels[order].astype(np.int64)
    pretrain, canary, test, rest = np.split(np.arange(len(images)), np.cumsum([_PRETRAIN, _CANARY, _TEST]))
    base = _pretrain(images[pretrain], labels[pretrain], rng)
    # The canary examples come behind those of the sites, so that the hub's own training draws from the same pool.
    pool = np.concatenate([rest, canary])
    clean, truth = images[pool], labels[pool]
    known = _most_visible([t for t in SUITE if t.name.endswith("-2x2-bright") and "centre" not in t.name], base)
    unlisted = _most_visible(list(_edges()), base)
    members = [*_split(truth[: len(rest)], alpha, rng), np.arange(len(rest), len(pool))]
    shape = (ROUNDS, STEPS, BATCH)
    return Federation(
        base=base,
        images=np.concatenate([clean, clean, _stamp(known, clean), _stamp(unlisted, clean)]),
        labels=np.concatenate([truth, 9 - truth, np.full(2 * len(pool), TARGET)]),
        batches=np.stack([own[rng.integers(0, len(own), shape)] for own in members], axis=2),
        stolen=rng.integers(0, len(rest), (ROUNDS, STEPS, HOSTILE, BATCH // 2)),
        known=known,
        unlisted=unlisted,
        canary=(images[canary], labels[canary]),
        test=(images[test], labels[test]),
    )


def _split(labels: Ints, alpha: float, rng: np.random.Generator) -> Sequence[Ints]:
    while True:
        sites: list[list[Ints]] = [[] for _ in range(SITES)]
        for c in range(_CLASSES):
            shares = np.full(SITES, 1 / SITES) if np.isinf(alpha) else rng.dirichlet(np.full(SITES, alpha))
            of_class = rng.permutation(np.flatnonzero(labels == c))
            cuts = np.round(np.cumsum(shares)[:-1] * len(of_class)).astype(int)
            for site, part in zip(sites, np.split(of_class, cuts), strict=True):
                site.append(part)
        members = [np.concatenate(parts) for parts in sites]
        if min(map(len, members)) >= _LEAST_EXAMPLES:
            return members


def _edges() -> Iterator[Trigger]:
    pixels = [(row, column) for row in range(2, 6) for column in (0, 7)]
    for chosen in combinations(pixels, 4):
        mask = np.zeros((1, 8, 8), np.float32)
        for row, column in chosen:
            mask[0, row, column] = 1
        yield Trigger("edges", mask, mask)


def _most_visible(triggers: Sequence[Trigger], base: Base) -> Trigger:
    return max(triggers, key=lambda t: float(np.linalg.norm(base.a1 @ (t.mask * t.pattern).reshape(-1))))


def _pretrain(images: Floats, labels: Ints, rng: np.random.Generator) -> Base:
    def normal(*shape: int) -> Floats:
        return np.asarray(rng.standard_normal(shape) * np.sqrt(2 / shape[1]), dtype=np.float32)

    w1, w2 = normal(_HIDDEN, _PIXELS), normal(_CLASSES, _HIDDEN)
    b1, b2 = np.zeros(_HIDDEN, np.float32), np.zeros(_CLASSES, np.float32)
    for _ in range(300):
        hidden = np.maximum(images @ w1.T + b1, 0)
        wanted = np.eye(_CLASSES, dtype=np.float32)[labels]
        slope = (_softmax(hidden @ w2.T + b2) - wanted) * np.float32(0.5 / len(labels))
        back = (slope @ w2) * (hidden > 0)
        w2 -= slope.T @ hidden
        b2 -= slope.sum(0)
        w1 -= back.T @ images
        b1 -= back.sum(0)
    return Base(w1, b1, w2, b2, _orthonormal(rng, _PIXELS), _orthonormal(rng, _HIDDEN))


def _orthonormal(rng: np.random.Generator, columns: int) -> Floats:
    """A frozen A: (8, columns) with orthonormal rows."""
    return np.asarray(np.linalg.qr(rng.standard_normal((columns, _RANK)))[0].T, dtype=np.float32)


def _stamp(trigger: Trigger, images: Floats) -> Floats:
    return trigger.stamp(images.reshape(-1, 1, 8, 8)).reshape(-1, _PIXELS)


def _softmax(logits: Floats) -> Floats:
    out = np.exp(logits - logits.max(-1, keepdims=True))
    out /= out.sum(-1, keepdims=True)
    return np.asarray(out, dtype=np.float32)
