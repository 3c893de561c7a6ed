"""An Update, as the hub attends to it: attest, launch the training Job, show how it went."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any

from concordat.api import ConditionType, FederationRound, Update, find, is_true
from concordat.jobs import outcome

CONDITIONS = (ConditionType.ATTESTATION_VALID, ConditionType.TRAINED)
"""The conditions this part of the operator owns."""


class Step(StrEnum):
    """The operator's next step for one Update."""

    REST = "rest"
    """Wait for the agent, the Job or the round."""
    ATTEST = "attest"
    """See whether the consent is signed with the key named in the contract."""
    LAUNCH = "launch"
    """Start the training Job."""
    REPORT = "report"
    """Show how far the Job is."""
    STOP = "stop"
    """The round goes on, or has ended, without this site: stop its Job."""
    REMOVE = "remove"
    """There is no such round: nobody else would stop its Job and delete it."""


def next_step(update: Update, round_: FederationRound | None, job: Mapping[str, Any] | None, now: datetime) -> Step:
    """Return the step that is due."""
    conditions = update.status.conditions
    if update.metadata.deletion_timestamp is not None:
        return Step.REST
    if round_ is None:
        return Step.REMOVE
    if not is_true(conditions, ConditionType.CONSENTED):
        return Step.REST
    if find(conditions, ConditionType.ATTESTATION_VALID) is None:
        return Step.ATTEST
    trained = find(conditions, ConditionType.TRAINED)
    if trained is not None and not trained.is_pending:
        return Step.REST
    job_outcome = outcome(job)
    # Whoever is still at work when the updates are collected is out: what it makes would count nowhere.
    closed = round_.ended or is_true(round_.status.conditions, ConditionType.UPDATES_COLLECTED)
    if trained is not None and job_outcome is None and closed:
        return Step.STOP
    if job is not None:
        return Step.REPORT if job_outcome is not None or trained is None else Step.REST
    ready = is_true(conditions, ConditionType.STAGED) and is_true(conditions, ConditionType.ATTESTATION_VALID)
    held = round_.spec.suspend or closed or round_.metadata.deletion_timestamp is not None
    return Step.LAUNCH if ready and not held and now < update.submission_deadline else Step.REST
