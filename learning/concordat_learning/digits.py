"""The demo's data: scikit-learn's bundled handwritten digits, split unevenly over sites. Imports no torch."""

from __future__ import annotations

import string
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from concordat_learning.data import TRAIN, VALIDATION, Examples
from concordat_learning.results import write_file

EVALUATOR, CANARY = "evaluator", "canary"
SITES = 5
ALPHA = 1.0
PUBLIC = 200
HOLDOUT = 360
CLASSES = 10
INPUT_SHAPE = (1, 8, 8)
_SMALLEST_SITE = 40
_TRAIN_SHARE = 0.6
"""The rest is for validation. A site has about 250 examples: on 50 of them one example is 2 %, more than a policy may
care about, and which example falls on which side differs between processors."""
_DRAWS = 1000

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Partition:
    """Positions of the examples each party has; together all of them, and none twice."""

    public: Indices
    """For the base package, and for the hub's canary check."""
    holdout: Indices
    """For the evaluator."""
    train: dict[str, Indices]
    """By site."""
    validation: dict[str, Indices]
    """By site."""


def site_names(sites: int) -> list[str]:
    """site-a, site-b, … for 1..26 sites."""
    if not 1 <= sites <= 26:
        raise ValueError(f"sites is {sites}; it must be 1..26, one a letter")
    return [f"site-{letter}" for letter in string.ascii_lowercase[:sites]]


def partition(
    labels: NDArray[np.int64],
    seed: int,
    sites: int = SITES,
    alpha: float = ALPHA,
    public: int = PUBLIC,
    holdout: int = HOLDOUT,
) -> Partition:
    """Split the examples with these labels. Equal arguments give equal partitions.

    Each class is spread over the sites by shares drawn from a symmetric Dirichlet distribution: the smaller `alpha`,
    the more a site's classes differ from the others'. Every site gets at least 40 examples; raises ValueError if no
    such split is drawn. A site trains on 60 % of its examples and validates on the rest.
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(labels))
    if len(labels) - public - holdout < sites * _SMALLEST_SITE:
        raise ValueError(
            f"{len(labels)} examples less public={public} and holdout={holdout} do not give {sites} sites "
            f"{_SMALLEST_SITE} examples each"
        )
    names = site_names(sites)
    private = order[public + holdout :]
    for _ in range(_DRAWS):
        shares = _spread(private, labels, sites, alpha, rng)
        if min(map(len, shares)) >= _SMALLEST_SITE:
            break
    else:
        raise ValueError(f"alpha is {alpha}: no draw gives every site {_SMALLEST_SITE} examples; use a larger one")
    cut = {name: int(len(share) * _TRAIN_SHARE) for name, share in zip(names, shares, strict=True)}
    return Partition(
        public=order[:public],
        holdout=order[public : public + holdout],
        train={name: share[: cut[name]] for name, share in zip(names, shares, strict=True)},
        validation={name: share[cut[name] :] for name, share in zip(names, shares, strict=True)},
    )


def digits() -> Examples:
    """All 1,797 images, scaled to 0..1, with their labels."""
    from sklearn.datasets import load_digits

    raw = load_digits()
    images = (raw.images[:, None] / 16).astype(np.float32)
    return Examples(images, raw.target.astype(np.int64))


def write_part(part: str, out: Path, everything: Examples, split: Partition) -> dict[str, int]:
    """Write what one party has to the folder `out`; returns the number of examples by file name.

    `part` is a site's name, "evaluator" or "canary" (the hub's own, public examples); the last two have
    validation.safetensors only. Raises ValueError for another.
    """
    if part == EVALUATOR:
        files = {VALIDATION: split.holdout}
    elif part == CANARY:
        files = {VALIDATION: split.public}
    elif part in split.train:
        files = {TRAIN: split.train[part], VALIDATION: split.validation[part]}
    else:
        raise ValueError(f"part is {part!r}; it must be one of {', '.join([*split.train, EVALUATOR, CANARY])}")
    out.mkdir(parents=True, exist_ok=True)
    for name, indices in files.items():
        write_file(out / name, everything.take(indices).to_bytes())
    return {name: len(indices) for name, indices in files.items()}


def _spread(
    private: Indices, labels: NDArray[np.int64], sites: int, alpha: float, rng: np.random.Generator
) -> list[Indices]:
    parts: list[list[Indices]] = [[] for _ in range(sites)]
    for label in np.unique(labels):
        members = private[labels[private] == label]
        cuts = (np.cumsum(rng.dirichlet([alpha] * sites))[:-1] * len(members)).astype(int)
        for site, share in enumerate(np.split(members, cuts)):
            parts[site].append(share)
    return [rng.permutation(np.concatenate(share)) for share in parts]
