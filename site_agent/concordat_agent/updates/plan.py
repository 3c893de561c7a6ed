"""Which step an Update needs from the agent."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from concordat.api import ConditionType, Update, is_settled, is_true
from concordat.jobs import Outcome

CONDITIONS = (ConditionType.CONSENTED, ConditionType.STAGED, ConditionType.SUBMITTED)
"""The conditions the agent owns."""
WITH_RESULT = (*CONDITIONS, ConditionType.TRAINED)
"""Those it writes once its Job has ended well: one write says that there is a result, and what became of it."""


class Step(StrEnum):
    """One step; each ends in one condition."""

    REST = "rest"
    """Nothing to do until something changes."""
    CONSENT = "consent"
    """Verify the contract, apply the site's policy, sign the answer; stage as well if it is quick."""
    STAGE = "stage"
    """Put the training Job's inputs on the workspace."""
    ADMIT = "admit"
    """Look at the training Job that the hub proposes, and let it run."""
    SUBMIT = "submit"
    """Check, gate, clip, sign and push what the Job left."""
    REPORT_NO_CONSENT = "report-no-consent"
    """The deadline for an answer passed before the agent could give one."""
    REPORT_FAILURE = "report-failure"
    """The Job failed: there is no candidate."""
    REPORT_LATE = "report-late"
    """There is a candidate, but the round takes none any more."""


def next_step(update: Update, job: Outcome | None, now: datetime, *, held: bool = False) -> Step:
    """Return the step due at the hub's time `now`.

    `job` is how the Job of that name ended (None: it has not); `held` whether it waits to be admitted.
    """
    conditions = update.status.conditions
    if update.metadata.deletion_timestamp is not None or is_settled(conditions, ConditionType.SUBMITTED):
        return Step.REST
    if not is_settled(conditions, ConditionType.CONSENTED):
        return Step.CONSENT if now < update.consent_deadline else Step.REPORT_NO_CONSENT
    if not is_true(conditions, ConditionType.CONSENTED):
        return Step.REST
    if not is_settled(conditions, ConditionType.STAGED):
        return Step.STAGE if now < update.submission_deadline else Step.REST
    if not is_true(conditions, ConditionType.STAGED):
        return Step.REST
    if job is None:
        return Step.ADMIT if held and now < update.submission_deadline else Step.REST
    if job.completed is None:
        return Step.REPORT_FAILURE
    # What the hub would not count must not leave the site.
    return Step.SUBMIT if now < update.submission_deadline else Step.REPORT_LATE
