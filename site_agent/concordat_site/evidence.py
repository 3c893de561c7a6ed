"""What the Jobs of the learning image leave: figures, read as input that may be wrong or hostile."""

from __future__ import annotations

from typing import Annotated, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.alias_generators import to_camel

from concordat.api.types import Ppm

Count = Annotated[int, Field(ge=0, le=2**53 - 1)]
Positive = Annotated[int, Field(ge=1, le=2**53 - 1)]


class EvidenceError(Exception):
    """The evidence is not what the Job should have left. The message names the field."""


class _Evidence(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, strict=True, frozen=True, extra="ignore")


class Training(_Evidence):
    """evidence.json of a training Job."""

    schema_: Annotated[Literal["concordat.dev/training-evidence/v1"], Field(alias="schema")]
    steps: Positive
    examples: Positive
    validation_examples: Positive
    parent_ppm: Ppm
    candidate_ppm: Ppm
    isolation: Literal["verified"]
    """The trainer proved to itself that it has no network; it does not train otherwise."""


class Quality(_Evidence):
    """Accuracy of one model with its confidence interval, in parts per million."""

    ppm: Ppm
    low_ppm: Ppm
    high_ppm: Ppm

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.low_ppm <= self.ppm <= self.high_ppm:
            raise ValueError(f"ppm {self.ppm} is outside its interval {self.low_ppm}..{self.high_ppm}")
        return self


class Models(_Evidence):
    """The models compared."""

    parent: Quality
    candidate: Quality
    champion: Quality | None = None


class Evaluation(_Evidence):
    """evaluation.json of an evaluation Job."""

    schema_: Annotated[Literal["concordat.dev/evaluation-evidence/v1"], Field(alias="schema")]
    examples: Positive
    models: Models
    isolation: Literal["verified"]


E = TypeVar("E", bound=_Evidence)


def parse(kind: type[E], data: bytes) -> E:
    """Read one evidence file. Raises EvidenceError."""
    try:
        return kind.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise EvidenceError(f"{kind.__name__.lower()} evidence: {where}: {first['msg']}") from None
