"""The report of the functional check of updates, on examples of the hub: step 8 of screening."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from concordat.api.types import Model, Name, SignedDecimal, SignedPpm
from concordat.protocol.document import Document
from concordat.protocol.training import Positive

SITES = "sites"
"""Folder beside the parent's: the parent with each update added, a folder per site."""


class CanaryResponse(Model):
    """How the parent with one update answers, against the parent alone."""

    loss_change: SignedDecimal
    """Of the mean cross entropy, in nats."""
    trigger_gain_ppm: SignedPpm
    """The largest share of examples that a known trigger turns to one class."""
    trigger: str = ""
    """The trigger with that share."""
    target_class: int = 0


class CanaryReport(Document):
    """The whole check."""

    FILE: ClassVar[str] = "canary.json"
    LIMIT: ClassVar[int] = 4 << 20

    schema_: Annotated[Literal["concordat.dev/canary-report/v1"], Field(alias="schema")] = (
        "concordat.dev/canary-report/v1"
    )
    examples: Positive
    parent_loss: SignedDecimal
    sites: dict[Name, CanaryResponse]
