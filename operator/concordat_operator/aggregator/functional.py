"""The functional check of updates (step 8) and candidate: what the learning image is given, and what it found."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, ValidationError

from concordat.aggregation import apply_delta
from concordat.api.round import Canary, Factor
from concordat.api.types import Model, Name, SignedDecimal, SignedPpm
from concordat.artifacts import RegistryStore
from concordat.artifacts.tensors import map_tensors, write_tensors
from concordat.artifacts.types import ADAPTER_CONFIG_FILE, ADAPTER_FILE
from concordat.lora import pad
from concordat.screening import Functional, FunctionalLimits, factor_names, signed
from concordat_operator.aggregator.inputs import Invalid, Offer, Parent
from concordat_operator.aggregator.judge import Verdict
from concordat_operator.aggregator.space import Combined

RESULT = "canary.json"
GATE, CANDIDATE = "gate", "candidate"


class _Site(Model):
    loss_change: SignedDecimal
    trigger_gain_ppm: SignedPpm
    trigger: str = ""
    target_class: int = 0


class _Result(Model):
    schema_: Annotated[Literal["concordat.dev/canary-report/v1"], Field(alias="schema")]
    sites: dict[Name, _Site]


async def prepare(store: RegistryStore, offer: Offer, parent: Parent, verdicts: Sequence[Verdict], work: Path) -> None:
    """Lay out the base package, the parent, and the parent with each update that passed so far."""
    await store.pull(offer.contract.base, work / "base")
    folder = work / "canary"
    # What an earlier try of this pod left may be half a file.
    shutil.rmtree(folder, ignore_errors=True)
    _adapter(folder / "parent", write_tensors(parent.tensors), parent.config)
    for verdict in verdicts:
        if verdict.delta is not None:
            delta = pad(map_tensors(verdict.delta), parent.adapter, offer.contract.recipe.train_factor)
            changed = write_tensors(apply_delta(parent.tensors, delta))
            _adapter(folder / "sites" / verdict.site, changed, parent.config)


def prepare_gate(parent: Parent, made: Combined | None, work: Path) -> None:
    """Lay out the candidate, if there is one, beside the base model: the parent with B = 0."""
    folder = work / GATE
    shutil.rmtree(folder, ignore_errors=True)
    factors_b = set(factor_names(parent.tensors, Factor.B))
    base = {name: np.zeros_like(t) if name in factors_b else t for name, t in parent.tensors.items()}
    _adapter(folder / "parent", write_tensors(base), parent.config)
    if made is not None:
        _adapter(folder / "sites" / CANDIDATE, write_tensors(made.candidate), parent.config)


def refusal(work: Path, canary: Canary) -> str | None:
    """Why the candidate is refused, in words; None: it is not. Raises Invalid."""
    found, most = read(work / GATE, [CANDIDATE])[CANDIDATE], canary.max_candidate_trigger_gain_ppm / 1e6
    if found.trigger_gain <= most:
        return None
    return (
        f"with the trigger {found.trigger}, {signed(100 * found.trigger_gain)} % more of the canary examples go to one "
        f"class than with the base model, at most {signed(100 * most)} %"
    )


def read(work: Path, sites: Sequence[str]) -> dict[str, Functional]:
    """What the check found of each of these sites. Raises Invalid if the result is not there or not whole."""
    path = work / RESULT
    try:
        found = _Result.model_validate(json.loads(path.read_bytes())).sites
        return {site: _functional(found[site]) for site in sites}
    except (OSError, ValueError, KeyError, ValidationError) as error:
        raise Invalid(f"the functional check left no usable {RESULT}: {error!r}") from error


def limits(canary: Canary) -> FunctionalLimits:
    """The contract's, as numbers."""
    return FunctionalLimits(float(canary.max_loss_increase), canary.max_trigger_gain_ppm / 1e6)


def _functional(site: _Site) -> Functional:
    return Functional(
        float(site.loss_change), site.trigger_gain_ppm / 1e6, f"{site.trigger} (class {site.target_class})"
    )


def _adapter(folder: Path, tensors: bytes, config: bytes) -> None:
    folder.mkdir(parents=True)
    (folder / ADAPTER_FILE).write_bytes(tensors)
    (folder / ADAPTER_CONFIG_FILE).write_bytes(config)
