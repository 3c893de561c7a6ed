"""Jobs that fail, vanish or cannot start never end in a dead end."""

from __future__ import annotations

from typing import Any

import pytest

from concordat.api import ConditionType, Site, is_true
from concordat.controller import JOB
from concordat.controller.errors import from_response
from concordat.errors import Transient
from concordat.jobs import aggregation_job_name
from tests.scenarios.faults import Interference, forbids
from tests.scenarios.federation import Federation
from tests.support.presence import condition, present


def ended(federation: Federation, name: str) -> tuple[str, str]:
    """Status and reason of Succeeded."""
    found = condition(federation.found(name).status.conditions, "Succeeded")
    return (found.status.value, found.reason)


async def fail(federation: Federation, space: str, name: str, **terminated: Any) -> None:
    """End a Job that is held, with a pod that left this."""
    job = present(federation.cache.get(JOB, space, name))
    uid = job["metadata"]["uid"]
    labels = {"batch.kubernetes.io/job-name": name, "batch.kubernetes.io/controller-uid": uid}
    container = job["spec"]["template"]["spec"]["containers"][0]["name"]
    metadata = {"name": f"{name}-{uid[:5]}", "namespace": space, "labels": labels}
    spec = {"containers": [{"name": container, "image": "x"}], "restartPolicy": "Never"}
    pod = await federation.admin.create({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
    state = {"name": container, "image": "x", "imageID": "", "ready": False, "restartCount": 0}
    status = {"phase": "Failed", "containerStatuses": [{**state, "state": {"terminated": terminated}}]}
    await federation.admin._write(
        "PATCH",
        f"/api/v1/namespaces/{space}/pods/{pod['metadata']['name']}/status",
        {"status": status},
        content_type="application/merge-patch+json",
    )
    failed = {"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded"}
    federation.cache.ended[uid] = {"conditions": [failed]}


async def test_an_aggregator_without_memory_runs_again_with_the_same_request(federation: Federation) -> None:
    """Finding 12."""
    federation.held = {federation.hub_space}
    await federation.round("r1")
    await federation.settle()
    first = present(federation.found("r1").status.aggregation)
    name = aggregation_job_name(federation.found("r1"))
    await fail(federation, federation.hub_space, name, exitCode=137, reason="OOMKilled")
    await federation.settle()
    shown = condition(federation.found("r1").status.conditions, "Aggregated")
    assert (shown.status.value, shown.reason) == ("False", "OOMKilled")
    assert "Run 1 of 3 failed, and it is run again. Pod" in shown.message
    federation.held = set()
    federation.clock.advance(31)
    await federation.settle()
    assert ended(federation, "r1") == ("True", "Released")
    last = present(federation.found("r1").status.aggregation)
    assert (last.run, last.request) == (2, first.request)


@pytest.mark.parametrize(("code", "runs"), [(65, 1), (70, 1), (1, 3)])
async def test_the_last_failure_of_the_aggregator_ends_the_round_with_its_cause(
    federation: Federation, code: int, runs: int
) -> None:
    """Finding 12: bad input and bugs are final at once."""
    federation.held = {federation.hub_space}
    await federation.round("r1")
    await federation.settle()
    for run in range(1, runs + 1):
        name = aggregation_job_name(federation.found("r1"), run)
        await fail(federation, federation.hub_space, name, exitCode=code, message="no such rule")
        await federation.settle()
        federation.clock.advance(121)
        await federation.settle()
    assert ended(federation, "r1") == ("False", "AggregationFailed")
    for type_ in ("Aggregated", "Succeeded"):
        found = condition(federation.found("r1").status.conditions, type_)
        assert (found.reason, f"exit code {code}: no such rule" in found.message) == ("AggregationFailed", True)


async def test_an_aggregator_that_is_deleted_is_launched_again_with_what_was_asked(federation: Federation) -> None:
    """Findings 11 and 36: what a site takes back meanwhile changes nothing."""
    federation.held = {federation.hub_space}
    await federation.round("r1")
    await federation.settle()
    asked = federation.found("r1").status.aggregation
    await federation.admin.delete(JOB, federation.hub_space, aggregation_job_name(federation.found("r1")))
    await federation.settle()
    federation.held = set()
    await federation.settle()
    assert ended(federation, "r1") == ("True", "Released")
    assert federation.found("r1").status.aggregation == asked


async def test_an_evaluator_without_memory_runs_again(federation: Federation) -> None:
    """Finding 12: one failure does not reject the candidate."""
    evaluator = federation.name("evaluator")
    federation.held = {evaluator}
    await federation.round("r1")
    await federation.settle()
    name = federation.released("r1")
    await fail(federation, evaluator, name, exitCode=137, reason="OOMKilled")
    await federation.settle()
    shown = condition(federation.copies(name)["evaluator"].status.conditions, "Validated")
    assert (shown.status.value, shown.reason) == ("Unknown", "OOMKilled")
    assert present(federation.copies(name)["evaluator"].status.attempt).number == 2
    federation.held = set()
    federation.clock.advance(31)
    await federation.settle()
    assert ended(federation, "r1") == ("True", "Released")


async def test_an_evaluation_job_that_is_deleted_is_launched_again(federation: Federation) -> None:
    """Finding 11."""
    federation.held = {federation.name("site-a")}
    await federation.round("r1", quorum=3)
    await federation.settle()
    federation.clock.advance(3601)
    await federation.settle()
    name = federation.released("r1")
    await federation.admin.delete(JOB, federation.name("site-a"), name)
    federation.held = set()
    await federation.settle()
    assert await federation.champion("site-a") == name


def no_room(space: str) -> Interference:
    """A ResourceQuota that is used up."""

    def refusal(method: str, path: str) -> Exception | None:
        refused = method == "POST" and path == f"/apis/batch/v1/namespaces/{space}/jobs"
        return from_response(path, 403, "Forbidden", "exceeded quota: compute", None) if refused else None

    return refusal


async def test_a_used_up_quota_is_shown_and_waited_for(federation: Federation) -> None:
    """Finding 12."""
    federation.cluster.before = no_room(federation.name("site-b"))
    await federation.round("r1")
    await federation.settle()
    trained = condition(federation.updates("r1")["site-b"].status.conditions, "Trained")
    assert (trained.status.value, trained.reason) == ("False", "QuotaExceeded")
    federation.cluster.before = None
    await federation.settle()
    assert ended(federation, "r1") == ("True", "Released")
    assert federation.found("r1").status.summary == "4/4 verified"


async def test_a_site_that_is_gone_is_said_and_its_return_noticed(federation: Federation) -> None:
    """Finding 23."""
    space = federation.name("site-b")
    federation.cluster.before = no_room(space)
    await federation.round("r1")
    await federation.settle()
    site = present(federation.cache.get(Site, space, space))
    await federation.admin.delete(Site, space, space)
    federation.cluster.before = None
    await federation.settle()
    trained = condition(federation.updates("r1")["site-b"].status.conditions, "Trained")
    assert (trained.status.value, trained.reason) == ("False", "SiteNotFound")
    wire = site.wire()
    metadata = {"name": space, "namespace": space}
    await federation.admin.create(
        {"apiVersion": wire["apiVersion"], "kind": "Site", "metadata": metadata, "spec": wire["spec"]}
    )
    await federation.settle()
    assert condition(federation.updates("r1")["site-b"].status.conditions, "Trained").reason == "Trained"


async def look(federation: Federation, controller: str, key: tuple[str, str]) -> None:
    """Let the operator look at one object."""
    (found,) = (one for one in federation.hub_controllers if one.name == controller)
    await found.reconcile(key)


async def test_rights_that_are_away_for_a_moment_do_not_cost_a_site_its_round(federation: Federation) -> None:
    """As after a restart of the API server, or while the site's chart is upgraded."""
    await federation.round("r1")
    while not (asked := federation.updates("r1")) or asked["site-a"].status.consent is None:
        await federation.turn()
    key = asked["site-a"].key
    federation.cluster.before = forbids("PATCH", key[0], "updates")
    with pytest.raises(Transient, match="cannot PATCH"):
        await look(federation, "update", key)
    federation.clock.jump(7200)
    await look(federation, "update", key)  # After the deadline the site may keep them for good.
    federation.clock.jump(-7200)
    federation.cluster.before = None
    await federation.settle()
    assert federation.found("r1").status.summary == "4/4 verified"


async def test_an_evaluation_that_failed_while_the_rights_were_away_runs_again(federation: Federation) -> None:
    """Before the deadline, not at the next resync."""
    evaluator = federation.name("evaluator")
    federation.held = {evaluator}
    await federation.round("r1")
    await federation.settle()
    key = (evaluator, federation.released("r1"))
    await fail(federation, *key, exitCode=137, reason="OOMKilled")
    await federation.sync()
    federation.cluster.before = forbids("PATCH", evaluator, "releases")
    with pytest.raises(Transient, match="cannot PATCH"):
        await look(federation, "release", key)
    federation.cluster.before = None
    federation.held = set()
    await federation.settle()
    federation.clock.advance(31)
    await federation.settle()
    assert ended(federation, "r1") == ("True", "Released")


async def test_verdicts_that_one_site_does_not_let_in_are_shown_on_the_others(federation: Federation) -> None:
    """Finding 4: `helm uninstall concordat-site` withdraws the rights and leaves the Update."""
    federation.held = {federation.hub_space}
    await federation.round("r1")
    await federation.settle()
    federation.cluster.before = forbids("PATCH", federation.name("site-a"), "updates")
    federation.tolerated += (Transient,)
    federation.agents.pop(federation.name("site-a"))
    federation.held = set()
    await federation.settle()
    federation.clock.advance(16)
    await federation.settle()
    assert ended(federation, "r1") == ("True", "Released")
    for short in ("site-b", "site-c", "site-d"):
        conditions = federation.updates("r1")[short].status.conditions
        assert is_true(conditions, ConditionType.VERIFIED)
        assert is_true(conditions, ConditionType.READY)


async def test_a_verdict_that_a_site_does_not_let_in_for_a_moment_is_shown_on_it(federation: Federation) -> None:
    """The round waits a moment for the rights, not for long: the signed verdict is in the registry anyway."""
    federation.held = {federation.hub_space}
    await federation.round("r1")
    await federation.settle()
    federation.cluster.before = forbids("PATCH", federation.name("site-a"), "updates")
    federation.tolerated += (Transient,)
    federation.held = set()
    await federation.settle()
    assert federation.found("r1").status.aggregate is None
    federation.cluster.before = None
    await federation.settle()
    assert ended(federation, "r1") == ("True", "Released")
    assert is_true(federation.updates("r1")["site-a"].status.conditions, ConditionType.VERIFIED)
