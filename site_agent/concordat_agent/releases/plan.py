"""Which step a copy of a Release needs from the agent."""

from __future__ import annotations

from enum import StrEnum

from concordat.api import ConditionType, Release, Role, is_false, is_settled, is_true
from concordat.jobs import Outcome

CONDITIONS: tuple[ConditionType, ...] = (ConditionType.STAGED, ConditionType.EVALUATED, ConditionType.ADOPTED)
"""The conditions the agent owns."""
WITH_ANSWER: tuple[ConditionType, ...] = (*CONDITIONS, ConditionType.READY, ConditionType.STALLED)
"""Those it writes with its answer: one write says that the copy is decided on, and what that means for the whole."""


class Step(StrEnum):
    """One step; each ends in one condition."""

    REST = "rest"
    """Nothing to do until something changes."""
    STAGE = "stage"
    """Verify the lineage and put the evaluation Job's inputs on the workspace."""
    ADMIT = "admit"
    """Look at the evaluation Job that the hub proposes, and let it run."""
    JUDGE = "judge"
    """Decide from what the Job measured, and sign the decision."""
    REPORT_FAILURE = "report-failure"
    """The Job failed for the last time: there are no metrics to decide from."""


def answer_condition(role: Role) -> ConditionType:
    """Return the condition in which the agent's decision is shown."""
    return ConditionType.EVALUATED if role is Role.EVALUATOR else ConditionType.ADOPTED


def next_step(release: Release, role: Role, job: Outcome | None, *, held: bool = False) -> Step:
    """Return the step due. `job` is how the Job of that name ended (None: it has not); `held` whether it waits."""
    conditions = release.status.conditions
    if release.metadata.deletion_timestamp is not None or is_settled(conditions, answer_condition(role)):
        return Step.REST
    if not is_settled(conditions, ConditionType.STAGED):
        return Step.STAGE
    if not is_true(conditions, ConditionType.STAGED):
        return Step.REST
    if job is None:
        return Step.ADMIT if held else Step.REST
    if job.completed is not None:
        return Step.JUDGE
    # The operator runs it again, some times; it says when that was the last.
    return Step.REPORT_FAILURE if is_false(conditions, ConditionType.VALIDATED) else Step.REST
