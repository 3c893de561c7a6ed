"""The functional check of updates (step 8) and candidate: what the learning image is given, and what it found."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from concordat.aggregation import apply_delta
from concordat.api.conditions import Reason
from concordat.api.round import Canary, Factor
from concordat.artifacts import RegistryStore
from concordat.protocol.artifact_types import ADAPTER_CONFIG_FILE, ADAPTER_FILE
from concordat.protocol.canary import SITES, CanaryReport, CanaryResponse
from concordat.protocol.contract import Contract
from concordat.protocol.document import DocumentError
from concordat.protocol.locations import PARENT_FOLDER
from concordat.screening import Functional, FunctionalLimits, signed
from concordat.tensors import factor_names, map_tensors, pad, write_tensors
from concordat_aggregator.inputs import Parent, RequestError
from concordat_aggregator.method import Combined
from concordat_aggregator.verify import UpdateVerdict

UPDATES, GATE, CANDIDATE = "canary", "gate", "candidate"


async def prepare(
    store: RegistryStore, contract: Contract, parent: Parent, verdicts: Sequence[UpdateVerdict], work: Path
) -> None:
    """Lay out the base package, the parent, and the parent with each update that passed so far."""
    await store.pull(contract.base, work / "base")
    folder = work / UPDATES
    # What an earlier try of this pod left may be half a file.
    shutil.rmtree(folder, ignore_errors=True)
    _adapter(folder / PARENT_FOLDER, write_tensors(parent.tensors), parent.config)
    for verdict in verdicts:
        if verdict.delta is not None:
            delta = pad(map_tensors(verdict.delta), parent.tensors, contract.recipe.train_factor)
            changed = write_tensors(apply_delta(parent.tensors, delta))
            _adapter(folder / SITES / verdict.site, changed, parent.config)


def prepare_gate(parent: Parent, combined: Combined | None, work: Path) -> None:
    """Lay out the candidate, if there is one, beside the base model: the parent with B = 0."""
    folder = work / GATE
    shutil.rmtree(folder, ignore_errors=True)
    factors_b = set(factor_names(parent.tensors, Factor.B))
    base = {name: np.zeros_like(t) if name in factors_b else t for name, t in parent.tensors.items()}
    _adapter(folder / PARENT_FOLDER, write_tensors(base), parent.config)
    if combined is not None:
        _adapter(folder / SITES / CANDIDATE, write_tensors(combined.candidate), parent.config)


def refusal(checked: Path, canary: Canary) -> str | None:
    """Return why the candidate is refused, in words; None: it is not. Raises RequestError."""
    found, most = read(checked / GATE).get(CANDIDATE), canary.max_candidate_trigger_gain_ppm / 1e6
    if found is None:
        raise RequestError(f"the functional check left no result for the {CANDIDATE}")
    if found.trigger_gain <= most:
        return None
    return (
        f"with the trigger {found.trigger}, {signed(100 * found.trigger_gain)} % more of the canary examples go to one "
        f"class than with the base model, at most {signed(100 * most)} %"
    )


def read(folder: Path) -> dict[str, Functional]:
    """Return what the check found, by site. Raises RequestError if the result is not there or not whole."""
    try:
        found = CanaryReport.from_bytes((folder / CanaryReport.FILE).read_bytes()).sites
        return {site: _functional(response) for site, response in found.items()}
    except (OSError, DocumentError) as error:
        raise RequestError(f"the functional check left no usable {CanaryReport.FILE}: {error!r}") from error


def without_result(verdicts: Sequence[UpdateVerdict], found: Mapping[str, Functional]) -> list[UpdateVerdict]:
    """Reject the updates that the check was not given: they were not in the registry when it began."""
    why = "it was not in the registry when the functional check began"
    return [
        replace(verdict, reason=Reason.ARTIFACT_UNREADABLE, message=why, delta=None)
        if verdict.passed and verdict.site not in found
        else verdict
        for verdict in verdicts
    ]


def limits(canary: Canary) -> FunctionalLimits:
    """Return the contract's limits of the functional check, as numbers."""
    return FunctionalLimits(float(canary.max_loss_increase), canary.max_trigger_gain_ppm / 1e6)


def _functional(response: CanaryResponse) -> Functional:
    trigger = f"{response.trigger} (class {response.target_class})"
    return Functional(float(response.loss_change), response.trigger_gain_ppm / 1e6, trigger)


def _adapter(folder: Path, tensors: bytes, config: bytes) -> None:
    folder.mkdir(parents=True)
    (folder / ADAPTER_FILE).write_bytes(tensors)
    (folder / ADAPTER_CONFIG_FILE).write_bytes(config)
