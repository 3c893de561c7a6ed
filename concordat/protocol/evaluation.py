"""A Job that measures adapters on a site's or an evaluator's own data: its task, and the evidence that it leaves."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from concordat.api.types import Model, Ppm
from concordat.protocol.document import Document
from concordat.protocol.training import Positive

ModelName = Literal["parent", "candidate", "champion"]
"""Also the folder of the model's adapter; so a name must not lead out of the task."""


def _different(names: list[ModelName]) -> list[ModelName]:
    if len(set(names)) != len(names):
        raise ValueError("a model is named twice")
    return names


class EvaluationTask(Document):
    """What the agent asks of the Job."""

    FILE: ClassVar[str] = "task.json"
    LIMIT: ClassVar[int] = 64 << 10

    kind: Literal["evaluate"] = "evaluate"
    models: Annotated[list[ModelName], Field(min_length=1), AfterValidator(_different)]
    """The adapters to measure, by the names of their folders beside the task."""
    confidence_ppm: Annotated[int, Field(ge=500_000, le=999_999)]
    """Confidence level of the intervals."""


class ModelQuality(Model):
    """Accuracy of one model with its confidence interval, in parts per million."""

    model_config = ConfigDict(strict=True, frozen=True)

    ppm: Ppm
    low_ppm: Ppm
    high_ppm: Ppm

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.low_ppm <= self.ppm <= self.high_ppm:
            raise ValueError(f"ppm {self.ppm} is outside its interval {self.low_ppm}..{self.high_ppm}")
        return self


class MeasuredModels(Model):
    """The models of the task."""

    model_config = ConfigDict(strict=True, frozen=True)

    parent: ModelQuality
    candidate: ModelQuality
    champion: ModelQuality | None = None


class EvaluationEvidence(Document):
    """What the Job measured of each model of its task."""

    model_config = ConfigDict(strict=True)

    FILE: ClassVar[str] = "evaluation.json"
    LIMIT: ClassVar[int] = 64 << 10

    schema_: Annotated[Literal["concordat.dev/evaluation-evidence/v1"], Field(alias="schema")] = (
        "concordat.dev/evaluation-evidence/v1"
    )
    examples: Positive
    models: MeasuredModels
    isolation: Literal["verified"]
    """The Job proved to itself that it has no network; it does not measure otherwise."""
