"""The site's decision on a release, or an evaluator's on a candidate: its quality here against the site's own rules."""

from __future__ import annotations

from dataclasses import dataclass

from concordat.api import Reason
from concordat_agent.policy import Answer, Mode, SitePolicy, percent


@dataclass(frozen=True)
class Comparison:
    """The qualities of a release and of the incumbent, both measured on the site's own data.

    The incumbent is what a site uses now, or what an evaluator approved last.
    """

    quality_ppm: int
    """Accuracy of the release, in parts per million."""
    incumbent_ppm: int
    """Accuracy of the incumbent."""
    incumbent: str
    """Its name, for the message."""

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


def objection(policy: SitePolicy, comparison: Comparison) -> Answer | None:
    """Return why a release, or a candidate, is not good enough here; None if it is."""
    judging, regression = policy.judging, comparison.regression_ppm
    if regression > judging.max_regression_ppm:
        excess = f"the regression of {regression} ppm exceeds judging.maxRegressionPpm {judging.max_regression_ppm}"
        return Answer.no(Reason.REGRESSION, f"{comparison}: {excess}.")
    if comparison.quality_ppm < judging.min_quality_ppm:
        return Answer.no(
            Reason.POLICY_REJECTED, f"{comparison}: below judging.minQualityPpm {judging.min_quality_ppm}."
        )
    return None


def decide_adoption(policy: SitePolicy, comparison: Comparison) -> Answer:
    """Return whether the site puts a release into use."""
    if policy.adoption.mode is Mode.NEVER:
        return Answer.no(Reason.POLICY_REJECTED, f"adoption.mode is Never; {comparison}.")
    return objection(policy, comparison) or Answer.yes(Reason.ADOPTED, f"Adopted: {comparison}.")
