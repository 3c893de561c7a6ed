"""What a local candidate must pass before anything of it leaves the site."""

from __future__ import annotations

from collections.abc import Callable

from concordat.api import Reason
from concordat.lora import Adapter, read_adapter
from concordat.protocol.contract import Contract
from concordat.protocol.training import TrainingEvidence
from concordat.tensors import Tensors, difference, read_tensors
from concordat_agent.policy import Answer, SitePolicy, percent

Gate = Callable[[Contract, SitePolicy, TrainingEvidence], str | None]
"""Why a local candidate must not leave the site, without a full stop; None if it may."""


def _within_budget(contract: Contract, policy: SitePolicy, training: TrainingEvidence) -> str | None:
    most = contract.budget.max_steps
    if training.steps > most:
        return f"The trainer made {training.steps} steps, budget.maxSteps is {most}"
    return None


def _no_regression(contract: Contract, policy: SitePolicy, training: TrainingEvidence) -> str | None:
    most = min(contract.gates.max_regression_ppm, policy.gates.max_regression_ppm)
    regression = training.parent_ppm - training.candidate_ppm
    if regression > most:
        return f"{_quality(training)}: the regression of {regression} ppm exceeds gates.maxRegressionPpm {most}"
    return None


GATES: tuple[Gate, ...] = (_within_budget, _no_regression)
"""In this order; the first that objects decides."""


def check_gates(contract: Contract, policy: SitePolicy, training: TrainingEvidence) -> Answer:
    """Return whether the evidence of a local training allows its candidate to be sent."""
    for gate in GATES:
        objection = gate(contract, policy, training)
        if objection is not None:
            return Answer.no(Reason.GATE_FAILED, f"{objection}; nothing was sent.")
    return Answer.yes(Reason.SUBMITTED, _quality(training))


def _quality(training: TrainingEvidence) -> str:
    return (
        f"candidate {percent(training.candidate_ppm)}, parent {percent(training.parent_ppm)} "
        f"on {training.validation_examples} of this site's examples"
    )


def adapter(tensors: bytes, config: bytes) -> Adapter:
    """Return the parent, module by module. Raises TensorError, LoraError."""
    return read_adapter(read_tensors(tensors), config)


def learned(contract: Contract, candidate: bytes, parent: bytes) -> Tensors:
    """Return candidate − parent for the tensors of the trained factor, from two safetensors files.

    Raises TensorError if the candidate cannot be read, FormError unless it has exactly the parent's tensors and
    differs in that factor only. The values may still be infinite or not a number; clipping refuses those.
    """
    return difference(read_tensors(candidate), read_tensors(parent), contract.recipe.train_factor)
