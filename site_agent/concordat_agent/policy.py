"""The site's own rules. Its Helm release writes it; the hub cannot change it.

Whoever decides by it answers with an `Answer`: yes or no, one word why, one sentence with numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Annotated

from pydantic import ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from concordat.api import Reason
from concordat.api.types import ArtifactRef, Decimal6, ImageRef, Model, Name, Ppm, Sha256
from concordat.protocol.canonical import canonical, sha256_digest
from concordat_agent.hours import Hours


@dataclass(frozen=True)
class Answer:
    """A decision of the site."""

    passed: bool
    reason: Reason
    message: str

    @classmethod
    def yes(cls, reason: Reason, message: str) -> Answer:
        """Return a consent."""
        return cls(True, reason, message)

    @classmethod
    def no(cls, reason: Reason, message: str) -> Answer:
        """Return a refusal."""
        return cls(False, reason, message)


class PolicyError(Exception):
    """The policy file cannot be used. Each problem names field, value and remedy."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("; ".join(problems) + "; correct the policy in the site's Helm values")
        self.problems = tuple(problems)


class _Strict(Model):
    # A mistyped limit must not silently mean "no limit".
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class ConsentPolicy(_Strict):
    """Rounds the site takes part in."""

    max_steps: Annotated[int, Field(ge=1)]
    """Most optimizer steps one round may ask for."""
    max_wall_seconds: Annotated[int, Field(ge=1)]
    """Most wall-clock seconds one round may ask for."""
    max_wall_seconds_per_day: Annotated[int, Field(ge=1)] | None = None
    """Most wall-clock seconds that all rounds consented to within 24 hours may ask for together. Absent: any."""
    hours: Hours | None = None
    """Times of day at which the site consents. Absent: any."""
    allowed_images: Annotated[list[ImageRef], Field(min_length=1)]
    """Images that may train here, by digest; no other may."""
    max_clip_norm: Decimal6 | None = None
    """Largest clipNorm of a contract; a smaller one bounds more tightly what an update can tell. Absent: any."""


class GatePolicy(_Strict):
    """Limits that a local candidate must reach before it is sent, on top of the contract's gates."""

    max_regression_ppm: Ppm = 1_000_000
    """Most that the candidate may fall below the parent; the stricter of this and the contract's applies."""


class JudgingPolicy(_Strict):
    """Releases that are good enough for the site, or candidates for an evaluator, by the data that are its own."""

    image: ImageRef
    """Image that measures, by digest, whatever image trained."""
    min_quality_ppm: Annotated[Ppm, Field(ge=1)]
    """Least quality, whatever it is compared with: the first release that a site adopts is compared with a parent that
    the hub names, and so is every candidate."""
    max_regression_ppm: Ppm = 20_000
    """Most that it may fall below what the site uses now, an evaluator's below what it approved last."""


class Mode(StrEnum):
    """The site's way of adopting releases."""

    AUTOMATIC = "Automatic"
    NEVER = "Never"


class AdoptionPolicy(_Strict):
    """Releases the site puts into use."""

    mode: Annotated[Mode, Field(strict=False)] = Mode.AUTOMATIC
    """Automatic adopts what passes; Never validates and reports, but adopts nothing."""


class SitePolicy(_Strict):
    """The site's own rules, which nothing from the hub overrules."""

    consent: ConsentPolicy
    """Rounds the site takes part in."""
    judging: JudgingPolicy
    """What is good enough, and who measures it."""
    allowed_bases: Annotated[list[Sha256], Field(min_length=1)] | None = None
    """Base packages that may be loaded here, for a round or a release, by the digest of their artifact. Absent: any."""
    required_runtime_class: Name | None = None
    """RuntimeClass that every Job of a round or a release must have here. Absent: any."""
    gates: GatePolicy = Field(default_factory=GatePolicy)
    """Local gates."""
    adoption: AdoptionPolicy = Field(default_factory=AdoptionPolicy)
    """Releases the site puts into use."""

    @property
    def digest(self) -> str:
        """Return the digest of the policy with all its defaults: equal rules have equal digests."""
        return sha256_digest(canonical(self.wire()))

    @classmethod
    def from_json(cls, text: str | bytes) -> SitePolicy:
        """Read policy.json. Raises PolicyError that names every wrong field."""
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise PolicyError([_problem(details) for details in error.errors(include_url=False)]) from None


def _problem(error: ErrorDetails) -> str:
    where = ".".join(str(part) for part in error["loc"]) or "policy.json"
    if error["type"] == "missing":
        return f"{where} is missing: set it"
    if error["type"] == "extra_forbidden":
        return f"{where} is no rule that a policy has: correct its name, or remove it"
    return f"{where}: {error['msg'].removeprefix('Value error, ')}, got {error['input']!r:.80}"


def base_objection(policy: SitePolicy, base: ArtifactRef) -> str | None:
    """Return why a base package must not be loaded at the site, without a full stop; None if it may."""
    allowed = policy.allowed_bases
    if allowed is None or base.digest in allowed:
        return None
    return f"base {base.digest} is not among this site's {len(allowed)} allowedBases"


def runtime_class_objection(policy: SitePolicy, runtime_class: str | None) -> str | None:
    """Return why a Job of that RuntimeClass must not run at the site, without a full stop; None if it may."""
    required = policy.required_runtime_class
    if required is None or runtime_class == required:
        return None
    return f"runtimeClassName is {runtime_class or 'absent'}, this site's requiredRuntimeClass is {required}"


def percent(ppm: int) -> str:
    """Return parts per million as people read them: 987500 is 98.75 %."""
    return f"{Decimal(ppm) / 10_000:.2f} %"
