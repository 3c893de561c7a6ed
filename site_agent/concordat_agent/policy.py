"""What the site itself allows. Its Helm release writes it; the hub cannot change it.

Every rule is a pure function that returns an `Answer`: yes or no, one word why, one sentence with numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Annotated

from pydantic import ConfigDict, Field, ValidationError

from concordat.api import Reason, Site
from concordat.api.types import Decimal6, ImageRef, Model, Ppm
from concordat.protocol.canonical import canonical, sha256_digest
from concordat.protocol.contract import Contract


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
    """The policy file cannot be used. The message names field, value and remedy."""


class _Strict(Model):
    # A mistyped limit must not silently mean "no limit".
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class ConsentPolicy(_Strict):
    """Rounds the site takes part in."""

    max_steps: Annotated[int, Field(ge=1)]
    """Most optimizer steps one round may ask for."""
    max_wall_seconds: Annotated[int, Field(ge=1)]
    """Most wall-clock seconds one round may ask for."""
    allowed_images: list[ImageRef] = Field(default_factory=list)
    """Images that may train here, by digest; empty allows any image the contract pins by digest."""
    max_clip_norm: Decimal6 | None = None
    """Largest clipNorm of a contract; a smaller one bounds more tightly what an update can tell. Absent: any."""


class GatePolicy(_Strict):
    """What a local candidate must reach before it is sent, on top of the contract's gates."""

    max_regression_ppm: Ppm = 1_000_000
    """Most that the candidate may fall below the parent; the stricter of this and the contract's applies."""


class Mode(StrEnum):
    """Whether the site adopts releases at all."""

    AUTOMATIC = "Automatic"
    NEVER = "Never"


class AdoptionPolicy(_Strict):
    """Releases the site puts into use."""

    mode: Annotated[Mode, Field(strict=False)] = Mode.AUTOMATIC
    """Automatic adopts what passes; Never validates and reports, but adopts nothing."""
    min_quality_ppm: Ppm = 0
    """Least quality on the site's own validation data."""
    max_regression_ppm: Ppm = 20_000
    """Most that the release may fall below what the site uses now, on the same data."""


class SitePolicy(_Strict):
    """The site's own rules, which nothing from the hub overrules."""

    consent: ConsentPolicy
    """Rounds the site takes part in."""
    gates: GatePolicy = Field(default_factory=GatePolicy)
    """Local gates."""
    adoption: AdoptionPolicy = Field(default_factory=AdoptionPolicy)
    """Releases the site puts into use."""

    @property
    def digest(self) -> str:
        """Digest of the policy with all its defaults: equal rules have equal digests."""
        return sha256_digest(canonical(self.wire()))

    @classmethod
    def from_json(cls, text: str | bytes) -> SitePolicy:
        """Read policy.json. Raises PolicyError that names the first wrong field."""
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(str(part) for part in first["loc"]) or "policy.json"
            raise PolicyError(
                f"{where}: {first['msg']}, got {first['input']!r:.80}; correct the policy in the site's Helm values"
            ) from None


def image(policy: SitePolicy, wanted: str) -> str | None:
    """Why an image may not run on the site's data; None if it may."""
    allowed = policy.consent.allowed_images
    if not allowed or wanted in allowed:
        return None
    return f"image {wanted} is not among this site's {len(allowed)} allowedImages"


Objection = Callable[[SitePolicy, Contract, Site], str | None]
"""Why the site does not take part in the contract's round, without a full stop; None if there is nothing against it."""


def _federation(policy: SitePolicy, contract: Contract, site: Site) -> str | None:
    if site.federation(contract.federation) is None:
        return f"federation {contract.federation!r} is not among this site's federations"
    return None


def _steps(policy: SitePolicy, contract: Contract, site: Site) -> str | None:
    asked, most = contract.budget.max_steps, policy.consent.max_steps
    return f"budget.maxSteps {asked} exceeds this site's {most}" if asked > most else None


def _seconds(policy: SitePolicy, contract: Contract, site: Site) -> str | None:
    asked, most = contract.budget.max_wall_seconds, policy.consent.max_wall_seconds
    return f"budget.maxWallSeconds {asked} exceeds this site's {most}" if asked > most else None


def _image(policy: SitePolicy, contract: Contract, site: Site) -> str | None:
    return image(policy, contract.image)


def _clip_norm(policy: SitePolicy, contract: Contract, site: Site) -> str | None:
    asked, most = contract.screening.clip_norm, policy.consent.max_clip_norm
    if most is not None and Decimal(asked) > Decimal(most):
        return f"screening.clipNorm {asked} exceeds this site's {most}"
    return None


CONSENT_CHECKS: tuple[Objection, ...] = (_federation, _steps, _seconds, _image, _clip_norm)
"""All of them are asked, and the answer names every objection."""


def consent(policy: SitePolicy, contract: Contract, site: Site) -> Answer:
    """Return whether the site takes part in a round whose contract is known to be genuine."""
    objections = [found for check in CONSENT_CHECKS if (found := check(policy, contract, site)) is not None]
    if objections:
        return Answer.no(Reason.POLICY_REFUSED, "; ".join(objections) + ".")
    return Answer.yes(Reason.CONSENTED, "The contract is genuine and within this site's policy.")


def adoption(policy: SitePolicy, *, quality_ppm: int, in_use_ppm: int, in_use: str) -> Answer:
    """Whether the site puts a release into use.

    `quality_ppm` is the release's quality and `in_use_ppm` that of what the site uses now, both measured on the
    site's own validation data; `in_use` names the latter for the message.
    """
    rules = policy.adoption
    fall = in_use_ppm - quality_ppm
    figures = f"quality {percent(quality_ppm)} on this site's data, {percent(in_use_ppm)} with {in_use}"
    if rules.mode is Mode.NEVER:
        return Answer.no(Reason.POLICY_REJECTED, f"adoption.mode is Never; {figures}.")
    if fall > rules.max_regression_ppm:
        return Answer.no(
            Reason.REGRESSION,
            f"{figures}: the fall exceeds adoption.maxRegressionPpm {rules.max_regression_ppm}.",
        )
    if quality_ppm < rules.min_quality_ppm:
        return Answer.no(Reason.POLICY_REJECTED, f"{figures}: below adoption.minQualityPpm {rules.min_quality_ppm}.")
    return Answer.yes(Reason.ADOPTED, f"Adopted: {figures}.")


def verdict(*, parent_ppm: int, candidate_ppm: int, high_ppm: int, min_improvement_ppm: int, examples: int) -> Answer:
    """The evaluator's verdict on a candidate.

    It passes when it gains at least `min_improvement_ppm` over the parent and the upper end of its confidence
    interval is not below the parent: a tolerated fall must not be one the data prove.
    """
    gain = candidate_ppm - parent_ppm
    figures = (
        f"candidate {percent(candidate_ppm)}, parent {percent(parent_ppm)} on {examples} hold-out examples, "
        f"gain {gain} ppm of {min_improvement_ppm} demanded"
    )
    if gain < min_improvement_ppm:
        return Answer.no(Reason.REJECTED, f"Rejected: {figures}.")
    if high_ppm < parent_ppm:
        return Answer.no(
            Reason.REJECTED, f"Rejected: {figures}; its interval ends at {percent(high_ppm)}, below the parent."
        )
    return Answer.yes(Reason.APPROVED, f"Approved: {figures}.")


def percent(ppm: int) -> str:
    """Parts per million as people read them: 987500 is 98.75 %."""
    return f"{Decimal(ppm) / 10_000:.2f} %"
