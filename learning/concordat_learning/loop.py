"""Local training of LoRA factor A, B or both within a budget, the same for Jobs, the demo's reference and the bench."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from concordat.api.round import Factor
from concordat_learning.data import Examples
from concordat_learning.errors import InputError

if TYPE_CHECKING:
    import torch

    from concordat_learning.model import AdaptedModel

Progress = Callable[[int, float], None]
"""Told the number of steps made and the last loss."""


@dataclass(frozen=True)
class LoopSettings:
    """How to train: AdamW on the parameters of the factor."""

    factor: Factor
    batch_size: int
    learning_rate: float
    seed: int
    """Already mixed with the site's name, see `site_seed`."""


@dataclass(frozen=True)
class Trained:
    """What training came to."""

    steps: int
    first_loss: float
    last_loss: float


def site_seed(seed: int, site: str) -> int:
    """Return the seed of one site: that of the contract with the site's name mixed in, 0..2^63-1."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{site}".encode()).digest()[:8], "big") >> 1


def batches(count: int, size: int, rng: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    """Endless batches of indices: every example once before any comes again, in a new order each time."""
    pending: NDArray[np.int64] = np.empty(0, np.int64)
    while True:
        while len(pending) < size:
            pending = np.concatenate([pending, rng.permutation(count)])
        yield pending[:size]
        pending = pending[size:]


def train(
    model: AdaptedModel,
    examples: Examples,
    recipe: LoopSettings,
    max_steps: int,
    *,
    deadline: float = float("inf"),
    clock: Callable[[], float] = time.monotonic,
    progress: Progress | None = None,
) -> Trained:
    """Train the model in place, until `max_steps` or until `clock()` reaches `deadline` (seconds).

    Equal inputs give equal weights on equal machines. Raises InputError if not one step could be made in time, or
    if the loss is not finite any more.
    """
    model.training(True)
    parameters = model.parameters(recipe.factor)
    losses = fit(parameters, model.loss, examples, recipe, max_steps, lambda: clock() < deadline, progress)
    model.training(False)
    if not losses:
        raise InputError("budget.maxWallSeconds is used up before the first step; allow more wall-clock time")
    return Trained(len(losses), losses[0], losses[-1])


def fit(
    parameters: list[torch.nn.Parameter],
    loss: Callable[[Examples], torch.Tensor],
    examples: Examples,
    recipe: LoopSettings,
    max_steps: int,
    in_time: Callable[[], bool] = lambda: True,
    progress: Progress | None = None,
) -> list[float]:
    """Minimize `loss` over `parameters` while there are steps and time; return the loss of every step."""
    import torch

    torch.manual_seed(recipe.seed)
    optimizer = torch.optim.AdamW(parameters, lr=recipe.learning_rate)
    losses: list[float] = []
    order = batches(len(examples), min(recipe.batch_size, len(examples)), np.random.default_rng(recipe.seed))
    while len(losses) < max_steps and in_time():
        value = loss(examples.take(next(order)))
        losses.append(float(value.detach()))
        if not np.isfinite(losses[-1]):
            raise InputError(f"the loss is {losses[-1]} in step {len(losses)}; lower recipe.learningRate")
        optimizer.zero_grad(set_to_none=True)
        value.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if progress:
            progress(len(losses), losses[-1])
    return losses
