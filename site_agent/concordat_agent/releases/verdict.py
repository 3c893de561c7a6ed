"""The evaluator's verdict on a candidate, from what its Job measured on the hold-out data."""

from __future__ import annotations

from concordat.api import Reason
from concordat_agent.policy import Answer, percent


def verdict(*, parent_ppm: int, candidate_ppm: int, high_ppm: int, min_improvement_ppm: int, examples: int) -> Answer:
    """Return the evaluator's verdict on a candidate.

    It passes when it improves by at least `min_improvement_ppm` over the parent and the upper end of its confidence
    interval is not below the parent: a tolerated regression must not be one the data prove.
    """
    improvement = candidate_ppm - parent_ppm
    metrics = (
        f"candidate {percent(candidate_ppm)}, parent {percent(parent_ppm)} on {examples} hold-out examples, "
        f"improvement {improvement} ppm of {min_improvement_ppm} demanded"
    )
    if improvement < min_improvement_ppm:
        return Answer.no(Reason.REJECTED, f"Rejected: {metrics}.")
    if high_ppm < parent_ppm:
        return Answer.no(
            Reason.REJECTED, f"Rejected: {metrics}; its interval ends at {percent(high_ppm)}, below the parent."
        )
    return Answer.yes(Reason.APPROVED, f"Approved: {metrics}.")
