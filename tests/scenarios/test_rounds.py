"""Rounds from `kubectl apply` to release, with the operator's and the agents' own reconcilers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from prometheus_client import REGISTRY

from concordat.api import Condition, ConditionType, FederationRound, Release, Site, Update, find, is_true
from concordat.controller import CONFIGMAP, JOB
from concordat.lora import Ceiling
from concordat.screening.strikes import LASTS
from concordat.tensors import Tensors
from tests.scenarios.federation import Federation
from tests.scenarios.refusing import refuse_jobs
from tests.support.presence import condition, present


def ended(federation: Federation, name: str) -> tuple[str, str]:
    """Status and reason of Succeeded."""
    found = condition(federation.found(name).status.conditions, "Succeeded")
    return (found.status.value, found.reason)


async def test_a_round_leads_by_itself_to_an_adopted_release(federation: Federation) -> None:
    await federation.round("r1")
    await federation.settle()
    assert ended(federation, "r1") == ("True", "Released")
    round_ = federation.found("r1")
    for type_ in (
        ConditionType.SITES_SELECTED,
        ConditionType.CONTRACT_SIGNED,
        ConditionType.UPDATES_COLLECTED,
        ConditionType.AGGREGATED,
        ConditionType.EVALUATED,
        ConditionType.RELEASED,
        ConditionType.READY,
    ):
        assert is_true(round_.status.conditions, ConditionType(type_)), type_
    assert round_.status.observed_generation == round_.metadata.generation
    assert round_.status.summary == "4/4 verified"
    assert present(round_.status.evaluation).candidate_ppm == 900_000
    name = federation.released("r1")
    copies = federation.copies(name)
    assert set(copies) == {"hub", "evaluator", "site-a", "site-b", "site-c", "site-d"}
    assert copies["hub"].spec.sequence == 1
    assert present(copies["hub"].status.rollout).adopted == 4
    for short in ("site-a", "site-b", "site-c", "site-d"):
        assert await federation.champion(short) == name
        assert is_true(copies[short].status.conditions, ConditionType.ADOPTED)


async def test_the_operator_writes_six_times_for_a_site_in_a_round(federation: Federation) -> None:
    """At a thousand sites each write counts: with the agent's five it is eleven a site and round."""
    writes: list[str] = []
    within = f"/namespaces/{federation.name('site-a')}/"

    def record(method: str, path: str) -> None:
        if method != "GET" and within in path:
            writes.append(f"{method} {path.split(within)[1]}")

    federation.cluster.after = record
    await federation.round("r1")
    await federation.settle()
    name, update = federation.released("r1"), federation.updates("r1")["site-a"].metadata.name
    assert sorted(writes) == sorted(
        ["POST updates", *[f"PATCH updates/{update}/status"] * 2, "POST jobs", "POST releases", "POST jobs"]
    )
    copy, trained = federation.copies(name)["site-a"].status, federation.updates("r1")["site-a"].status
    assert condition(trained.conditions, "Trained").is_true
    assert condition(copy.conditions, "Ready").reason == "Adopted"
    assert copy.observed_generation == 1


async def test_the_next_round_starts_from_what_the_channel_points_to(federation: Federation) -> None:
    await federation.round("r1")
    await federation.settle()
    first = federation.released("r1")
    federation.quality = {federation.name(s): 950_000 for s in ("evaluator", "site-a", "site-b", "site-c", "site-d")}
    await federation.round("r2")
    await federation.settle()
    assert ended(federation, "r2") == ("True", "Released")
    second = federation.copies(federation.released("r2"))["hub"]
    assert second.spec.sequence == 2
    assert second.spec.parent == federation.copies(first)["hub"].spec.adapter
    assert await federation.champion("site-a") == second.metadata.name


async def test_the_factors_take_turns_and_a_round_without_a_release_takes_none(federation: Federation) -> None:
    """Who set neither recipe.trainFactor nor aggregation.lora trained B for ever."""
    factors = []
    for name, quality in (("r1", 900_000), ("r2", 700_000), ("r3", 950_000), ("r4", 960_000)):
        federation.quality[federation.name("evaluator")] = quality
        await federation.round(name)
        await federation.settle()
        factors.append((await federation.contract(name)).recipe.train_factor.value)
        assert ended(federation, name)[0] == str(name != "r2")
    assert factors == ["B", "A", "A", "B"]


async def test_a_site_that_demands_more_rejects_and_stays_where_it_was(federation: Federation) -> None:
    await federation.join("site-e", judging={"minQualityPpm": 990_000})
    await federation.settle()
    await federation.round("r1")
    await federation.settle()
    assert ended(federation, "r1") == ("True", "Released")
    name = federation.released("r1")
    adopted = condition(federation.copies(name)["site-e"].status.conditions, "Adopted")
    assert (adopted.status.value, adopted.reason) == ("False", "PolicyRejected")
    assert await federation.champion("site-e") is None
    assert present(federation.copies(name)["hub"].status.rollout).rejected == 1


def poisoned(delta: Tensors, ceiling: Ceiling) -> Any:
    """An honestly signed update, turned around and blown up."""
    from concordat_agent.signer import Prepared

    scaled = {name: values * np.float32(-20) for name, values in delta.items()}
    return Prepared(delta=scaled, norm=math.hypot(*ceiling.norms(scaled).values()), clipped=False)


async def test_a_hostile_update_is_rejected_by_its_norm_and_never_aggregated(federation: Federation) -> None:
    await federation.join("site-e", prepare=poisoned)
    await federation.settle()
    await federation.round("r1")
    await federation.settle()
    assert ended(federation, "r1") == ("True", "Released")
    updates = federation.updates("r1")
    verified = condition(updates["site-e"].status.conditions, "Verified")
    assert (verified.status.value, verified.reason) == ("False", "NormExceeded")
    assert present(updates["site-e"].status.verdict).statement is not None
    (gone,) = federation.found("r1").status.dropped_sites
    assert (gone.site, gone.step, gone.reason) == (federation.name("site-e"), "Verified", "NormExceeded")
    assert federation.found("r1").status.summary == "4/5 verified"


def turned(delta: Tensors, ceiling: Ceiling) -> Any:
    """An update turned around, as large as the contract allows."""
    from concordat_agent.signer import clipped

    return clipped({name: values * np.float32(-100) for name, values in delta.items()}, ceiling)


async def test_more_rejections_than_the_budget_wait_for_approval(federation: Federation) -> None:
    await federation.join("site-e", prepare=poisoned)
    await federation.settle()
    await federation.round("r1", aggregation={"maxFaultySites": 0})
    await federation.settle()
    round_ = federation.found("r1")
    assert round_.status.phase == "Held"
    assert condition(round_.status.conditions, "Ready").reason == "HeldForApproval"
    assert round_.status.release is None
    assert present(round_.status.aggregate).rejected == 1
    await federation.patch("federationrounds", "r1", {"approveHeld": True})
    await federation.settle()
    assert ended(federation, "r1") == ("True", "Released")


async def test_a_poisoner_is_quarantined_the_second_time_for_a_while_or_until_a_hub_admin_ends_it(
    federation: Federation,
) -> None:
    """Engine review, finding F4: one suspicion was for ever, and honest sites meet one, too."""
    for short in ("site-e", "site-f", "site-g", "site-h"):
        await federation.join(short)
    await federation.join("site-i", prepare=turned)
    await federation.settle()
    hostile, hub = federation.name("site-i"), federation.hub_space
    federation.canary_loss = {hostile: "9"}

    async def round_(name: str) -> set[str]:
        """Run a round; returns who was asked."""
        await federation.round(name, screening={"clipNorm": "4", "canary": {"claim": "canary"}})
        await federation.settle()
        assert ended(federation, name) == ("True", "Released")
        federation.clock.advance(10)
        await federation.settle()
        return {site.name for site in (await federation.contract(name)).sites}

    def quarantine() -> Condition | None:
        return find(federation.cache.get(Site, hostile, hostile).status.conditions, ConditionType.QUARANTINED)

    assert hostile in await round_("r1")
    verdict = present(federation.updates("r1")["site-i"].status.verdict)
    assert verdict.reason == "PoisoningSuspected"
    assert "Spectral" in verdict.alerts
    assert verdict.measurements["lossChange"] == "9"
    assert present(federation.found("r1").status.aggregate).suspected == [hostile]
    assert is_true(federation.found("r1").status.conditions, ConditionType.POISONING_ALERT)
    assert quarantine() is None

    assert hostile in await round_("r2")
    shown = present(quarantine())
    assert shown.is_true
    assert f"kubectl -n {hub} patch configmap concordat-quarantine" in shown.message
    assert hostile not in await round_("r3")

    # What the message says, without kubectl.
    found = await federation.admin.get(CONFIGMAP, hub, "concordat-quarantine")
    kept = {key: value for key, value in found["data"].items() if f"/data/{key}" not in shown.message}
    assert kept == {}
    await federation.admin.replace({**found, "data": {key: found["data"][key] for key in list(found["data"])[:1]}})
    federation.clock.advance(10)
    await federation.settle()
    assert quarantine() is None
    assert hostile in await round_("r4")
    assert present(quarantine()).is_true
    federation.clock.advance(LASTS.total_seconds())
    await federation.settle()
    assert quarantine() is None


async def test_a_failed_training_job_is_told_apart_and_the_round_goes_on(federation: Federation) -> None:
    federation.outcomes = {federation.name("site-b"): "DeadlineExceeded"}
    await federation.round("r1")
    await federation.settle()
    assert ended(federation, "r1") == ("True", "Released")
    trained = condition(federation.updates("r1")["site-b"].status.conditions, "Trained")
    assert (trained.status.value, trained.reason) == ("False", "DeadlineExceeded")


async def test_a_job_that_a_site_does_not_admit_is_told_apart_and_hurts_nobody_else(federation: Federation) -> None:
    await refuse_jobs(federation, "site-b")
    await federation.round("r1")
    await federation.settle()
    assert ended(federation, "r1") == ("True", "Released")
    trained = condition(federation.updates("r1")["site-b"].status.conditions, "Trained")
    assert (trained.status.value, trained.reason) == ("False", "JobNotAllowed")
    assert "no Jobs here" in trained.message
    ready = condition(federation.copies(federation.released("r1"))["site-b"].status.conditions, "Ready")
    assert (ready.status.value, ready.reason) == ("False", "JobNotAllowed")


async def test_below_quorum_no_champion_is_touched(federation: Federation) -> None:
    await federation.round("r1", budget={"maxSteps": 501})
    await federation.settle()
    assert ended(federation, "r1") == ("False", "QuorumNotReached")
    message = condition(federation.found("r1").status.conditions, "Succeeded").message
    for short in ("site-a", "site-b", "site-c", "site-d"):
        assert f"{federation.name(short)} (Consented: PolicyRefused)" in message
        assert await federation.champion(short) is None
    assert federation.launched == []


async def test_a_silent_site_is_counted_out_at_the_deadline(federation: Federation) -> None:
    silent = federation.agents.pop(federation.name("site-d"))
    await federation.round("r1")
    await federation.settle()
    assert condition(federation.found("r1").status.conditions, "UpdatesCollected").reason == "InProgress"
    federation.clock.advance(301)
    await federation.settle()
    assert ended(federation, "r1") == ("True", "Released")
    (gone,) = federation.found("r1").status.dropped_sites
    assert (gone.site, gone.reason) == (federation.name("site-d"), "DeadlineExceeded")
    # What it says when it comes back is not counted, and hurts nobody.
    federation.agents[federation.name("site-d")] = silent
    await federation.settle()
    assert ended(federation, "r1") == ("True", "Released")


async def test_a_round_whose_contract_is_lost_says_so_and_keeps_what_it_knew(federation: Federation) -> None:
    await federation.round("done")
    await federation.settle()
    del federation.agents[federation.name("site-d")]
    await federation.round("r1")
    await federation.settle()
    before = {name: federation.found(name).status for name in ("done", "r1")}
    for status in before.values():
        await federation.registry.delete(present(status.contract).artifact)
    await federation.start_operator()
    await federation.settle()
    assert federation.found("done").status == before["done"]
    after = federation.found("r1").status
    assert condition(after.conditions, "Stalled").reason == "ArtifactUnreadable"
    assert (after.contract, after.counts) == (before["r1"].contract, before["r1"].counts)
    await federation.admin.delete(FederationRound, federation.hub_space, "r1")
    await federation.settle()
    assert [r.metadata.name for r in federation.cache.list(FederationRound)] == ["done"]


async def test_a_rejected_candidate_is_released_to_nobody(federation: Federation) -> None:
    federation.quality = {federation.name("evaluator"): 700_000}
    await federation.round("r1")
    await federation.settle()
    assert ended(federation, "r1") == ("False", "NotApproved")
    name = federation.released("r1")
    assert set(federation.copies(name)) == {"hub", "evaluator"}
    assert await federation.champion("site-a") is None


async def test_a_release_is_counted_when_it_is_decided_and_not_before(federation: Federation) -> None:
    def counted() -> dict[str, float]:
        values = {
            reason: REGISTRY.get_sample_value("concordat_releases_total", {"reason": reason})
            for reason in ("Evaluating", "Approved")
        }
        return {reason: value or 0.0 for reason, value in values.items()}

    before = counted()
    await federation.round("r1")
    await federation.settle()
    assert ended(federation, "r1") == ("True", "Released")
    after = counted()
    assert {reason: after[reason] - before[reason] for reason in after} == {"Evaluating": 0, "Approved": 1}


async def test_an_evaluator_that_does_not_answer_fails_the_round(federation: Federation) -> None:
    del federation.agents[federation.name("evaluator")]
    await federation.round("r1", deadlines={"evaluationSeconds": 60})
    await federation.settle()
    assert condition(federation.found("r1").status.conditions, "Ready").reason == "InProgress"
    federation.clock.advance(61)
    await federation.settle()
    assert ended(federation, "r1") == ("False", "EvaluationDeadlineExceeded")


async def test_suspend_holds_a_round_and_resume_goes_on(federation: Federation) -> None:
    await federation.round("r1", suspend=True)
    await federation.settle()
    assert is_true(federation.found("r1").status.conditions, ConditionType.SUSPENDED)
    assert federation.updates("r1") == {}
    await federation.patch("federationrounds", "r1", {"suspend": False})
    await federation.settle()
    assert ended(federation, "r1") == ("True", "Released")


async def test_a_stalled_round_recovers_when_corrected(federation: Federation) -> None:
    await federation.round("r1", quorum=9)
    await federation.settle()
    assert condition(federation.found("r1").status.conditions, "Stalled").reason == "QuorumUnreachable"
    await federation.patch("federationrounds", "r1", {"quorum": 3})
    await federation.settle()
    assert ended(federation, "r1") == ("True", "Released")
    assert find(federation.found("r1").status.conditions, ConditionType.STALLED) is None


async def test_deleting_a_round_removes_what_it_made_but_not_an_approved_release(federation: Federation) -> None:
    federation.quality = {federation.name("evaluator"): 700_000}
    await federation.round("bad")
    await federation.settle()
    federation.quality = {}
    await federation.round("good")
    await federation.settle()
    kept = federation.released("good")
    for name in ("bad", "good"):
        await federation.admin.delete(FederationRound, federation.hub_space, name)
    await federation.settle()
    assert federation.cache.list(FederationRound) == []
    assert federation.cache.list(Update) == []
    names = {r.metadata.name for r in federation.cache.list(Release)}
    assert names == {"digits-0", kept}
    jobs = {job["metadata"]["name"] for job in federation.cache.list(JOB)}
    assert jobs == {kept}


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_killing_the_operator_at_every_write_changes_nothing(federation: Federation, moment: str) -> None:
    federation.mortal = moment
    await federation.round("r1")
    await federation.settle(200)
    assert ended(federation, "r1") == ("True", "Released")
    assert federation.deaths > 20
    name = federation.released("r1")
    assert set(federation.copies(name)) == {"hub", "evaluator", "site-a", "site-b", "site-c", "site-d"}
    assert federation.found("r1").status.summary == "4/4 verified"
    # Each Job ran once: four trained, one aggregated, five judged.
    assert len(federation.launched) == len(set(federation.launched)) == 10
    assert [r.spec.sequence for r in federation.cache.list(Release, federation.hub_space)] == [0, 1]
    for short in ("site-a", "site-b", "site-c", "site-d"):
        assert await federation.champion(short) == name
