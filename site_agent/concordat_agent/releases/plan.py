"""Which step a copy of a Release needs from the agent."""

from __future__ import annotations

from enum import StrEnum

from concordat.api import ConditionType, Release, Role, is_settled, is_true
from concordat.api.site import Champion
from concordat.jobs import Outcome

CONDITIONS = (ConditionType.STAGED, ConditionType.EVALUATED, ConditionType.ADOPTED, ConditionType.CHAMPION)
"""The conditions the agent owns."""


class Step(StrEnum):
    """One step; each ends in one condition."""

    REST = "rest"
    """Nothing to do until something changes."""
    STAGE = "stage"
    """Verify the lineage and put the evaluation Job's inputs on the workspace."""
    JUDGE = "judge"
    """Decide from what the Job measured, and sign the decision."""
    REPORT_FAILURE = "report-failure"
    """The Job failed: there are no metrics to decide from."""
    MARK = "mark"
    """Decided before; show whether it is the champion now."""


def answer_condition(role: Role) -> ConditionType:
    """Return the condition in which the agent's decision is shown."""
    return ConditionType.EVALUATED if role is Role.EVALUATOR else ConditionType.ADOPTED


def next_step(release: Release, role: Role, job: Outcome | None, champion: Champion | None) -> Step:
    """Return the step due. `champion` is what the site uses now in the release's federation."""
    conditions = release.status.conditions
    if release.metadata.deletion_timestamp is not None:
        return Step.REST
    if is_settled(conditions, answer_condition(role)):
        shown = is_true(conditions, ConditionType.CHAMPION)
        return Step.REST if shown is is_champion(release, champion) else Step.MARK
    if not is_settled(conditions, ConditionType.STAGED):
        return Step.STAGE
    if not is_true(conditions, ConditionType.STAGED) or job is None:
        return Step.REST
    return Step.REPORT_FAILURE if job.completed is None else Step.JUDGE


def is_champion(release: Release, champion: Champion | None) -> bool:
    """Return whether that copy is the one in use."""
    return (
        champion is not None
        and champion.release == release.metadata.name
        and (champion.artifact == release.spec.adapter)
    )
