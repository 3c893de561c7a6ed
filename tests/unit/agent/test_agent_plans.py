"""Which step is due: a table for each kind, and what holds for every state."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from concordat.api import Release, Role, Site, Update
from concordat.api.site import AgentStatus, Champion
from concordat.jobs import Outcome, outcome
from concordat_agent.releases.plan import Step as ReleaseStep
from concordat_agent.releases.plan import next_step as release_step
from concordat_agent.site import plan as site_plan
from concordat_agent.updates.plan import Step as UpdateStep
from concordat_agent.updates.plan import next_step as update_step

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
DEADLINE = NOW + timedelta(hours=1)
DONE = Outcome(NOW)
FAILED = Outcome(None, "DeadlineExceeded")
ADAPTER = {"repository": "digits/adapters", "digest": "sha256:" + "a" * 64}


def _conditions(status: Mapping[str, str]) -> list[dict[str, Any]]:
    """Conditions by type; a value is a status, or status and reason."""
    return [
        {"type": type_, "status": value, "reason": reason or "Staged", "lastTransitionTime": NOW}
        for type_, text in status.items()
        for value, _, reason in [text.partition(":")]
    ]


def _update(conditions: Mapping[str, str], *, deleted: bool = False) -> Update:
    return Update.model_validate(
        {
            "metadata": {"name": "r1-0123abcd", "namespace": "site-a", "deletionTimestamp": NOW if deleted else None},
            "spec": {
                "federation": "digits",
                "roundRef": {"name": "r1", "namespace": "concordat", "uid": "0123abcd"},
                "site": "site-a",
                "contract": ADAPTER,
                "contractDigest": "sha256:" + "c" * 64,
                "consentDeadline": DEADLINE,
                "submissionDeadline": DEADLINE,
            },
            "status": {"conditions": _conditions(conditions)},
        }
    )


def _release(conditions: Mapping[str, str], name: str = "digits-1", *, deleted: bool = False) -> Release:
    return Release.model_validate(
        {
            "metadata": {"name": name, "namespace": "site-a", "deletionTimestamp": NOW if deleted else None},
            "spec": {"federation": "digits", "sequence": 1, "base": ADAPTER, "adapter": ADAPTER},
            "status": {"conditions": _conditions(conditions)},
        }
    )


def _champion(name: str, sequence: int = 1) -> Champion:
    return Champion.model_validate({"release": name, "sequence": sequence, "artifact": ADAPTER, "qualityPpm": 1})


@pytest.mark.parametrize(
    ("conditions", "job", "late", "step"),
    [
        ({}, None, False, UpdateStep.CONSENT),
        ({}, None, True, UpdateStep.REPORT_NO_CONSENT),
        ({"Consented": "False:DiskFull"}, None, False, UpdateStep.CONSENT),
        ({"Consented": "False:RegistryUnavailable"}, None, True, UpdateStep.REPORT_NO_CONSENT),
        ({"Consented": "True", "Staged": "False:RegistryRefused"}, None, False, UpdateStep.STAGE),
        ({"Consented": "True", "Staged": "False:RegistryRefused"}, None, True, UpdateStep.REST),
        ({"Consented": "True", "Staged": "True", "Submitted": "False:DiskFull"}, DONE, False, UpdateStep.SUBMIT),
        ({"Consented": "True", "Staged": "True", "Submitted": "False:DiskFull"}, DONE, True, UpdateStep.REPORT_LATE),
        ({"Consented": "False"}, None, False, UpdateStep.REST),
        ({"Consented": "False"}, DONE, False, UpdateStep.REST),
        ({"Consented": "True"}, None, False, UpdateStep.STAGE),
        ({"Consented": "True"}, None, True, UpdateStep.REST),
        ({"Consented": "True"}, DONE, False, UpdateStep.STAGE),
        ({"Consented": "True", "Staged": "False"}, DONE, False, UpdateStep.REST),
        ({"Consented": "True", "Staged": "True"}, None, False, UpdateStep.REST),
        ({"Consented": "True", "Staged": "True"}, DONE, False, UpdateStep.SUBMIT),
        ({"Consented": "True", "Staged": "True"}, DONE, True, UpdateStep.REPORT_LATE),
        ({"Consented": "True", "Staged": "True"}, FAILED, False, UpdateStep.REPORT_FAILURE),
        ({"Consented": "True", "Staged": "True", "Submitted": "True"}, DONE, False, UpdateStep.REST),
        ({"Consented": "True", "Staged": "True", "Submitted": "False"}, DONE, False, UpdateStep.REST),
        ({"Submitted": "True"}, None, False, UpdateStep.REST),
    ],
)
def test_update_steps(conditions: dict[str, str], job: Outcome | None, late: bool, step: UpdateStep) -> None:
    assert update_step(_update(conditions), job, DEADLINE if late else NOW) is step


@pytest.mark.parametrize(
    ("role", "conditions", "job", "step"),
    [
        (Role.TRAINER, {}, None, ReleaseStep.STAGE),
        (Role.TRAINER, {}, DONE, ReleaseStep.STAGE),
        (Role.TRAINER, {"Staged": "False"}, DONE, ReleaseStep.REST),
        (Role.TRAINER, {"Staged": "False:DiskFull"}, None, ReleaseStep.STAGE),
        (Role.TRAINER, {"Staged": "True", "Adopted": "False:RegistryUnavailable"}, DONE, ReleaseStep.JUDGE),
        (Role.EVALUATOR, {"Staged": "True", "Evaluated": "False:DiskFull"}, DONE, ReleaseStep.JUDGE),
        (Role.TRAINER, {"Staged": "True"}, None, ReleaseStep.REST),
        (Role.TRAINER, {"Staged": "True"}, DONE, ReleaseStep.JUDGE),
        # Finding 12: the operator runs it again, and says when that was the last time.
        (Role.TRAINER, {"Staged": "True"}, FAILED, ReleaseStep.REST),
        (Role.TRAINER, {"Staged": "True", "Validated": "False"}, FAILED, ReleaseStep.REPORT_FAILURE),
        (Role.TRAINER, {"Staged": "True", "Adopted": "False"}, DONE, ReleaseStep.REST),
        (Role.TRAINER, {"Adopted": "True"}, DONE, ReleaseStep.REST),
        (Role.EVALUATOR, {"Staged": "True"}, DONE, ReleaseStep.JUDGE),
        (Role.EVALUATOR, {"Staged": "True", "Evaluated": "True"}, DONE, ReleaseStep.REST),
        (Role.EVALUATOR, {"Staged": "True", "Evaluated": "False"}, DONE, ReleaseStep.REST),
    ],
)
def test_release_steps(role: Role, conditions: dict[str, str], job: Outcome | None, step: ReleaseStep) -> None:
    assert release_step(_release(conditions), role, job) is step


_STATUS = st.sampled_from(["True", "False", "Unknown"])
_JOBS = st.sampled_from([None, DONE, FAILED])


@given(
    st.dictionaries(st.sampled_from(["Consented", "Staged", "Submitted", "Trained"]), _STATUS),
    _JOBS,
    st.datetimes(timezones=st.just(UTC)),
)
def test_nothing_is_sent_without_consent_or_late(conditions: dict[str, str], job: Outcome | None, at: datetime) -> None:
    step = update_step(_update(conditions), job, at)
    if step is UpdateStep.SUBMIT:
        assert conditions["Consented"] == conditions["Staged"] == "True"
        assert job is DONE
        assert at < DEADLINE
        assert "Submitted" not in conditions
    assert update_step(_update(conditions, deleted=True), job, at) is UpdateStep.REST


@given(
    st.dictionaries(st.sampled_from(["Staged", "Evaluated", "Adopted", "Validated"]), _STATUS),
    _JOBS,
    st.sampled_from(list(Role)),
)
def test_nothing_is_judged_unverified_or_twice(conditions: dict[str, str], job: Outcome | None, role: Role) -> None:
    step = release_step(_release(conditions), role, job)
    if step is ReleaseStep.JUDGE:
        assert conditions["Staged"] == "True"
        assert ("Evaluated" if role is Role.EVALUATOR else "Adopted") not in conditions
    assert release_step(_release(conditions, deleted=True), role, job) is ReleaseStep.REST


@pytest.mark.parametrize(
    ("job", "expected"),
    [
        (None, None),
        ({}, None),
        ({"status": {"active": 1}}, None),
        ({"status": {"conditions": [{"type": "Complete", "status": "False"}]}}, None),
        ({"status": {"conditions": [{"type": "FailureTarget", "status": "True"}]}}, None),
        (
            {
                "status": {
                    "completionTime": "2026-11-24T12:00:00Z",
                    "conditions": [
                        {"type": "SuccessCriteriaMet", "status": "True"},
                        {"type": "Complete", "status": "True"},
                    ],
                }
            },
            DONE,
        ),
        (
            {
                "status": {
                    "conditions": [{"type": "Failed", "status": "True", "reason": "PodFailurePolicy", "message": "71"}]
                }
            },
            Outcome(None, "PodFailurePolicy: 71"),
        ),
    ],
)
def test_how_a_job_ended(job: dict[str, Any] | None, expected: Outcome | None) -> None:
    assert outcome(job) == expected


def test_the_site_shows_its_champion_and_keeps_what_it_needs() -> None:
    site = Site.model_validate(
        {
            "metadata": {"name": "site-a", "namespace": "site-a"},
            "spec": {
                "federations": [{"name": "letters", "dataClaim": "d"}, {"name": "digits", "dataClaim": "d"}],
                "workspaceClaim": "workspace",
                "judgingImage": "x@sha256:" + "1" * 64,
            },
        }
    )
    shown = {"publicKey": "pem", "proof": "{}"}
    said = AgentStatus.model_validate({"key": shown, "policyDigest": "sha256:" + "d" * 64, "version": "0.1.0"})
    champion, previous = _champion("digits-2", 2), _champion("digits-1")
    assert site_plan.status(site, said, {}).champion is None
    assert site_plan.status(site, said, {"digits": champion}).champion == champion
    assert site_plan.folders(["r1-0123abcd"], ["digits-3"], [champion, previous]) == {
        "r1-0123abcd",
        "digits-3",
        "digits-2",
        "digits-1",
    }
