"""What a local candidate must pass before anything of it leaves the site."""

from __future__ import annotations

from concordat.api import Reason
from concordat.lora import Adapter, read_adapter
from concordat.protocol.contract import Contract
from concordat.protocol.training import TrainingEvidence
from concordat.screening import Tensors, difference
from concordat.tensors import read_tensors
from concordat_site.policy import Answer, SitePolicy, percent


def judge(contract: Contract, policy: SitePolicy, training: TrainingEvidence) -> Answer:
    """Whether the figures of a local training allow its candidate to be sent.

    The stricter of the contract's and the site's own maxRegressionPpm applies.
    """
    if training.steps > contract.budget.max_steps:
        return Answer(
            False,
            Reason.GATE_FAILED,
            f"The trainer made {training.steps} steps, budget.maxSteps is {contract.budget.max_steps}; "
            "nothing was sent.",
        )
    limit = min(contract.gates.max_regression_ppm, policy.gates.max_regression_ppm)
    fall = training.parent_ppm - training.candidate_ppm
    figures = (
        f"candidate {percent(training.candidate_ppm)}, parent {percent(training.parent_ppm)} "
        f"on {training.validation_examples} of this site's examples"
    )
    if fall > limit:
        return Answer(
            False,
            Reason.GATE_FAILED,
            f"{figures}: the fall of {fall} ppm exceeds gates.maxRegressionPpm {limit}; nothing was sent.",
        )
    return Answer(True, Reason.SUBMITTED, figures)


def adapter(tensors: bytes, config: bytes) -> Adapter:
    """The parent, module by module. Raises TensorError, LoraError."""
    return read_adapter(read_tensors(tensors), config)


def learned(contract: Contract, candidate: bytes, parent: bytes) -> Tensors:
    """What training changed: candidate − parent, for the tensors of the trained factor, from two safetensors files.

    Raises TensorError if the candidate cannot be read, ScreeningError unless it has exactly the parent's tensors and
    differs in that factor only. The values may still be infinite or not a number; clipping refuses those.
    """
    return difference(read_tensors(candidate), read_tensors(parent), contract.recipe.train_factor)
