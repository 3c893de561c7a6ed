"""A site's training Job: its task, and the evidence that it leaves. Evidence is read as if it were hostile."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field

from concordat.api.types import Name, Ppm
from concordat.protocol.document import Document

Positive = Annotated[int, Field(ge=1, le=2**53 - 1)]
Figure = Annotated[str, Field(max_length=32)]
"""A real number as text, for people to read."""


class TrainingTask(Document):
    """What the agent asks of the Job, beside contract.json."""

    FILE: ClassVar[str] = "task.json"
    LIMIT: ClassVar[int] = 64 << 10

    kind: Literal["train"] = "train"
    site: Name


class TrainingEvidence(Document):
    """What the Job says of the training, beside the candidate's adapter."""

    model_config = ConfigDict(strict=True)

    FILE: ClassVar[str] = "evidence.json"
    LIMIT: ClassVar[int] = 64 << 10

    schema_: Annotated[Literal["concordat.dev/training-evidence/v1"], Field(alias="schema")] = (
        "concordat.dev/training-evidence/v1"
    )
    steps: Positive
    examples: Positive
    validation_examples: Positive
    parent_ppm: Ppm
    candidate_ppm: Ppm
    isolation: Literal["verified"]
    """The trainer proved to itself that it has no network; it does not train otherwise."""
    first_loss: Figure | None = None
    last_loss: Figure | None = None
    wall_seconds: Figure | None = None
