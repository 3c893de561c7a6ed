"""The aggregator Job against a real registry: the steps of screening that look at a round, and the LoRA modes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from concordat.protocol import artifact_types as types
from concordat.tensors import read_tensors, write_tensors
from concordat_aggregator.job import EXIT_INVALID, main
from tests.apiserver.registry.federation import A2, B2, HONEST, PARENT, SITES, A, B, Federation, federation

__all__ = ["federation"]
CANARY = {"screening": {"clipNorm": "1", "canary": {"claim": "canary"}}}
QUIET = {"lossChange": "-0.1", "triggerGainPpm": 20_000, "trigger": "corner", "targetClass": 3}


def outcomes(report: dict[str, Any]) -> dict[str, str]:
    return {verdict["site"]: verdict["reason"] for verdict in report["verdicts"]}


def canary_found(work: Path, candidate: dict[str, Any] | None = None, **sites: dict[str, Any]) -> None:
    """What the containers of the learning image leave."""
    found = dict.fromkeys(SITES, QUIET) | {name.replace("_", "-"): value for name, value in sites.items()}
    report = {"schema": "concordat.dev/canary-report/v1", "examples": 200, "parentLoss": "1", "sites": found}
    gate = {**report, "sites": {"candidate": candidate or QUIET}}
    for folder, left in (("canary", report), ("gate", gate)):
        (work / "checked" / folder).mkdir(parents=True, exist_ok=True)
        (work / "checked" / folder / "canary.json").write_text(json.dumps(left))


def test_every_verdict_has_the_numbers_of_every_step(federation: Federation, tmp_path: Path) -> None:
    report = federation.aggregate(federation.request(federation.open(), federation.honest(*SITES)), tmp_path)
    for verdict in report["verdicts"]:
        assert {"norm", "relativeNorm", "nearestCosine", "centreCosine"} <= verdict["measurements"].keys()
        assert verdict["alerts"] == []
    assert (report["maxFaultySites"], report["rejected"], report["remainingFaults"]) == (1, 0, 1)
    assert sum(map(float, report["spectrum"])) == pytest.approx(1, abs=1e-5)


def test_the_report_is_also_a_picture(federation: Federation, tmp_path: Path) -> None:
    request = federation.request(federation.open(), federation.honest(*SITES))
    assert main(federation.arguments(request, tmp_path)) == 0
    references = json.loads((tmp_path / "result").read_text())
    picture = federation.read(references["report"], types.REPORT_PICTURE_FILE)
    assert b"<svg" in picture
    assert main(federation.arguments(request, tmp_path)) == 0
    assert json.loads((tmp_path / "result").read_text()) == references


def test_the_canary_container_is_given_the_parent_with_each_update(federation: Federation, tmp_path: Path) -> None:
    contract = federation.open(**CANARY)
    entries = federation.honest(*SITES[:4])
    bad = federation.submit("site-e", write_tensors({name: t * 100 for name, t in HONEST["site-e"].items()}))
    request = federation.request(contract, [*entries, bad])
    arguments = [*federation.arguments(request, tmp_path)[:-2], "--until", "updates"]
    for _ in range(2):  # a pod that is tried again finds what the first try left
        assert main(arguments) == 0
    work = tmp_path / "work"
    assert (work / "base" / "package.json").read_bytes() == b"{}"
    assert (work / "canary" / "parent" / types.ADAPTER_FILE).read_bytes() == write_tensors(PARENT)
    assert sorted(folder.name for folder in (work / "canary" / "sites").iterdir()) == list(SITES[:4])
    found = read_tensors(work / "canary" / "sites" / "site-b" / types.ADAPTER_FILE)
    assert np.array_equal(found[B2], PARENT[B2] + HONEST["site-b"][B2])
    assert np.array_equal(found[A], PARENT[A])


def test_a_failed_check_of_an_update_is_an_alert_and_rejects_nothing(federation: Federation, tmp_path: Path) -> None:
    request = federation.request(federation.open(**CANARY), federation.honest(*SITES))
    canary_found(
        tmp_path / "work",
        site_b={**QUIET, "triggerGainPpm": 900_000},
        site_c={**QUIET, "lossChange": "3.5"},
    )
    report = federation.aggregate(request, tmp_path)
    assert outcomes(report) == dict.fromkeys(SITES, "Verified")
    said = {verdict["site"]: verdict for verdict in report["verdicts"]}
    assert {site for site in SITES if said[site]["alerts"] == ["Functional"]} == {"site-b", "site-c"}
    assert "corner (class 3)" in said["site-b"]["message"]
    assert said["site-b"]["measurements"]["triggerGain"] == "0.9"
    assert said["site-c"]["measurements"]["lossChange"] == "3.5"


def test_a_candidate_with_a_backdoor_is_refused(federation: Federation, tmp_path: Path) -> None:
    request = federation.request(federation.open(**CANARY), federation.honest(*SITES))
    canary_found(tmp_path / "work")
    assert main([*federation.arguments(request, tmp_path)[:-2], "--until", "candidate"]) == 0
    gate = tmp_path / "work" / "gate"
    base = read_tensors(gate / "parent" / types.ADAPTER_FILE)
    assert all(np.array_equal(base[name], np.zeros_like(t) if "lora_B" in name else t) for name, t in PARENT.items())
    assert (gate / "sites" / "candidate" / types.ADAPTER_FILE).read_bytes() == federation.expected(*SITES)
    canary_found(tmp_path / "work", candidate={**QUIET, "triggerGainPpm": 910_000})
    report = federation.aggregate(request, tmp_path)
    assert report["reason"] == "TriggerResponse"
    assert report["adapter"] is None
    assert "91 % more of the canary examples go to one class than with the base model" in report["message"]


@pytest.mark.attack("F7: an update withdrawn and put back while it is checked", "aggregator", "ArtifactUnreadable")
def test_a_site_that_the_check_was_not_given_is_rejected_alone(federation: Federation, tmp_path: Path) -> None:
    """Security finding F7: it deleted its update and put it back while the check ran; that failed the round for all."""
    request = federation.request(federation.open(**CANARY), federation.honest(*SITES))
    canary_found(tmp_path / "work")
    report_file = tmp_path / "work" / "checked" / "canary" / "canary.json"
    report = json.loads(report_file.read_text())
    del report["sites"]["site-b"]
    report_file.write_text(json.dumps(report))
    found = outcomes(federation.aggregate(request, tmp_path))
    assert found == dict.fromkeys(SITES, "Verified") | {"site-b": "ArtifactUnreadable"}


@pytest.mark.parametrize("left", [None, "{}", '{"schema": "concordat.dev/canary-report/v1", "sites": {}}'])
def test_without_the_result_of_the_canary_nothing_is_decided(
    federation: Federation, tmp_path: Path, left: str | None
) -> None:
    request = federation.request(federation.open(**CANARY), federation.honest(*SITES))
    left_in = tmp_path / "work" / "checked" / "canary"
    left_in.mkdir(parents=True)
    if left is not None:
        (left_in / "canary.json").write_text(left)
    assert main(federation.arguments(request, tmp_path)) == EXIT_INVALID


def test_more_rejections_than_the_budget_hold_the_candidate(federation: Federation, tmp_path: Path) -> None:
    """Engine review, finding F5: the candidate was the plain mean of the others."""
    contract = federation.open()
    long = [
        federation.submit(site, write_tensors({name: t * 100 for name, t in HONEST[site].items()}))
        for site in SITES[3:]
    ]
    report = federation.aggregate(federation.request(contract, [*federation.honest(*SITES[:3]), *long]), tmp_path)
    assert report["reason"] == "HeldForApproval"
    assert report["message"] == (
        "2 updates were rejected, aggregation.maxFaultySites is 1. The candidate is made to withstand 1 among the 3 "
        "that are left."
    )
    assert report["remainingFaults"] == 1
    assert federation.read(report["adapter"], types.ADAPTER_FILE) == federation.expected(*SITES[:3], faults=1)


def test_a_scaled_copy_and_the_last_aggregate_sent_back_are_found(federation: Federation, tmp_path: Path) -> None:
    contract = federation.open()
    last = HONEST["site-e"]
    before = {name: t - last[name] if name in last else t for name, t in PARENT.items()}
    previous = federation.push("digits/adapters", types.ADAPTER, {types.ADAPTER_FILE: write_tensors(before)})
    entries = [
        *federation.honest(*SITES[:3]),
        federation.submit("site-d", write_tensors({name: t * 0.7 for name, t in HONEST["site-a"].items()})),
        federation.submit("site-e", write_tensors(last)),
    ]
    request = federation.request(contract, entries, ancestors=[previous.wire()])
    report = federation.aggregate(request, tmp_path)
    assert outcomes(report) == {
        **dict.fromkeys(SITES[:3], "Verified"),
        "site-d": "NearDuplicate",
        "site-e": "FreeRiding",
    }
    assert "previousCosine" in report["verdicts"][0]["measurements"]


def test_a_site_of_lower_rank_is_padded(federation: Federation, tmp_path: Path) -> None:
    policy = {"aggregation": {"rule": "Mean", "preAggregation": "None", "maxFaultySites": 0}}
    contract = federation.open(**policy)
    narrow = {name: np.ascontiguousarray(t[:, :1]) for name, t in HONEST["site-e"].items()}
    entries = [*federation.honest(*SITES[:2]), federation.submit("site-e", write_tensors(narrow))]
    report = federation.aggregate(federation.request(contract, entries), tmp_path)
    assert outcomes(report)["site-e"] == "Verified"
    made = read_tensors(federation.read(report["adapter"], types.ADAPTER_FILE))
    wanted = PARENT[B2] + (HONEST["site-a"][B2] + HONEST["site-b"][B2] + np.pad(narrow[B2], ((0, 0), (0, 1)))) / 3
    np.testing.assert_allclose(made[B2] @ made[A2], wanted @ PARENT[A2], atol=1e-6)


BOTH = {"image": "registry.local/learning@sha256:" + "1" * 64, "trainFactor": "Both"}


@pytest.mark.parametrize(
    "policy",
    [
        {"lora": "Svd", "rule": "TrimmedMean", "preAggregation": "NNM", "maxFaultySites": 1},
        {"lora": "Svd", "rule": "TrimmedMean", "preAggregation": "None", "maxFaultySites": 0},
        {"lora": "Svd", "rule": "CAF", "preAggregation": "None", "maxFaultySites": 1},
        {"lora": "Svd", "rule": "Mean", "preAggregation": "None", "maxFaultySites": 0},
    ],
)
def test_both_factors_average_as_products(federation: Federation, tmp_path: Path, policy: dict[str, Any]) -> None:
    contract = federation.open(recipe=BOTH, aggregation=policy)
    still = {name: np.zeros_like(PARENT[name]) for name in (A, A2)}
    entries = [federation.submit(site, write_tensors({**still, **HONEST[site]})) for site in SITES]
    report = federation.aggregate(federation.request(contract, entries), tmp_path)
    assert report["reason"] == "Aggregated", report["message"]
    made = read_tensors(federation.read(report["adapter"], types.ADAPTER_FILE))
    moved = {pair: made[pair[1]] @ made[pair[0]] - PARENT[pair[1]] @ PARENT[pair[0]] for pair in ((A, B), (A2, B2))}
    assert float(report["loraError"]) < 1e-4
    if policy["rule"] in ("Mean", "TrimmedMean") and not policy["maxFaultySites"]:
        for (a, b), change in moved.items():
            mean = np.mean([HONEST[site][b] for site in SITES], axis=0) @ PARENT[a]
            np.testing.assert_allclose(change, mean, atol=1e-5)


def test_the_last_aggregate_sent_back_is_found_where_both_factors_are_trained(
    federation: Federation, tmp_path: Path
) -> None:
    contract = federation.open(recipe=BOTH, aggregation={"lora": "Svd", "maxFaultySites": 1})
    rng = np.random.default_rng(1)
    sent = {
        site: {name: rng.normal(scale=0.05, size=t.shape).astype(np.float32) for name, t in PARENT.items()}
        for site in SITES
    }
    before = {name: t - sent["site-e"][name] for name, t in PARENT.items()}
    previous = federation.push("digits/adapters", types.ADAPTER, {types.ADAPTER_FILE: write_tensors(before)})
    entries = [federation.submit(site, write_tensors(delta)) for site, delta in sent.items()]
    report = federation.aggregate(federation.request(contract, entries, ancestors=[previous.wire()]), tmp_path)
    assert outcomes(report) == {**dict.fromkeys(SITES[:4], "Verified"), "site-e": "FreeRiding"}
    cosines = [float(verdict["measurements"]["previousCosine"]) for verdict in report["verdicts"]]
    assert cosines[4] > 0.98 > 0.9 > max(map(abs, cosines[:4]))


def test_an_average_of_too_high_a_rank_is_refused(federation: Federation, tmp_path: Path) -> None:
    policy = {"lora": "Svd", "rule": "Mean", "preAggregation": "None", "maxFaultySites": 0}
    contract = federation.open(recipe=BOTH, aggregation=policy, screening={"clipNorm": "100"})
    rng = np.random.default_rng(0)
    entries = [
        federation.submit(
            site, write_tensors({n: rng.normal(scale=1, size=t.shape).astype(np.float32) for n, t in PARENT.items()})
        )
        for site in SITES
    ]
    report = federation.aggregate(federation.request(contract, entries), tmp_path)
    assert report["reason"] == "LoraErrorAboveLimit"
    assert report["adapter"] is None
    assert "at most 5%" in report["message"]


def test_fltrust_measures_by_the_reference_site(federation: Federation, tmp_path: Path) -> None:
    policy = {"rule": "FLTrust", "preAggregation": "None", "maxFaultySites": 1, "referenceSite": "site-a"}
    request = federation.request(federation.open(aggregation=policy), federation.honest(*SITES))
    assert federation.aggregate(request, tmp_path)["reason"] == "Aggregated"
    request = federation.request(federation.open(aggregation=policy), federation.honest(*SITES[1:]))
    assert federation.aggregate(request, tmp_path)["reason"] == "ReferenceMissing"
