"""The site's decision on a release: its quality here against the site's own rules."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from concordat.api import Reason
from concordat_agent.policy import AdoptionPolicy, Answer, Mode, percent


@dataclass(frozen=True)
class Comparison:
    """The qualities of a release and of the incumbent, both measured on the site's own validation data."""

    quality_ppm: int
    """Accuracy of the release, in parts per million."""
    incumbent_ppm: int
    """Accuracy of what the site uses now."""
    incumbent: str
    """The name of what the site uses now, for the message."""

    @property
    def regression_ppm(self) -> int:
        """Return how far the release falls below the incumbent; negative if it is better."""
        return self.incumbent_ppm - self.quality_ppm

    def __str__(self) -> str:
        """Return both qualities as a condition's message tells them."""
        return (
            f"quality {percent(self.quality_ppm)} on this site's data, "
            f"{percent(self.incumbent_ppm)} with {self.incumbent}"
        )


AdoptionCheck = Callable[[AdoptionPolicy, Comparison], Answer | None]
"""The refusal of a release by one rule; None if the rule allows it."""


def _mode(policy: AdoptionPolicy, comparison: Comparison) -> Answer | None:
    if policy.mode is Mode.NEVER:
        return Answer.no(Reason.POLICY_REJECTED, f"adoption.mode is Never; {comparison}.")
    return None


def _regression(policy: AdoptionPolicy, comparison: Comparison) -> Answer | None:
    regression, most = comparison.regression_ppm, policy.max_regression_ppm
    if regression > most:
        message = f"{comparison}: the regression of {regression} ppm exceeds adoption.maxRegressionPpm {most}."
        return Answer.no(Reason.REGRESSION, message)
    return None


def _quality(policy: AdoptionPolicy, comparison: Comparison) -> Answer | None:
    least = policy.min_quality_ppm
    if comparison.quality_ppm < least:
        return Answer.no(Reason.POLICY_REJECTED, f"{comparison}: below adoption.minQualityPpm {least}.")
    return None


ADOPTION_CHECKS: tuple[AdoptionCheck, ...] = (_mode, _regression, _quality)
"""In this order; the first that refuses decides."""


def decide_adoption(policy: AdoptionPolicy, comparison: Comparison) -> Answer:
    """Return whether the site puts a release into use."""
    for check in ADOPTION_CHECKS:
        refusal = check(policy, comparison)
        if refusal is not None:
            return refusal
    return Answer.yes(Reason.ADOPTED, f"Adopted: {comparison}.")
