"""With a canary the program runs three times in one pod: what an earlier run made is not made again."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.speed.job import open_round, sent
from concordat.api.round import Factor
from concordat.protocol.aggregation import AggregationReport
from concordat.screening import update
from concordat_aggregator import both_factors, method
from concordat_aggregator.job import Until, run

SITES = [f"site-{number:03}" for number in range(5)]
QUIET = {"lossChange": "0", "triggerGainPpm": 0, "trigger": "corner", "targetClass": 0}


def updates() -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    common = rng.standard_normal((4, 96))
    return [
        {str(i): (part + rng.standard_normal(96)).astype(np.float32) for i, part in enumerate(common)} for _ in SITES
    ]


def answer(folder: Path, sites: list[str]) -> None:
    """What the containers of the learning image leave."""
    found = {"schema": "concordat.dev/canary-report/v1", "examples": 1, "parentLoss": "1"}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "canary.json").write_text(json.dumps({**found, "sites": dict.fromkeys(sites, QUIET)}))


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each pass over the updates was made."""
    counted: Counter[str] = Counter()

    def count(module: Any, name: str) -> None:
        function: Callable[..., Any] = getattr(module, name)

        def counting(*args: Any, **more: Any) -> Any:
            counted[name] += 1
            return function(*args, **more)

        monkeypatch.setattr(module, name, counting)

    count(update, "check_form")
    count(update, "fingerprint")
    count(method, "gram")
    count(method, "aggregate")
    count(both_factors, "product_gram")
    count(both_factors, "svd_mean")
    return counted


@pytest.mark.parametrize("factor", [Factor.B, Factor.BOTH])
def test_three_runs_make_every_pass_once_and_the_report_of_one_run(
    tmp_path: Path, calls: Counter[str], factor: Factor
) -> None:
    """Engine review, finding F12: with a canary all of it was made three times."""
    lora = {"lora": "Svd"} if factor is Factor.BOTH else {}
    opened = open_round(sent(updates(), factor), factor, {"rule": "DnC", "preAggregation": "ARC", **lora}, canary=True)

    def until(end: Until, work: Path) -> Any:
        return asyncio.run(run(opened.store, opened.request, work, end, checked=work / "checked"))

    work = tmp_path / "pod"
    until(Until.UPDATES, work)
    answer(work / "checked" / "canary", SITES)
    until(Until.CANDIDATE, work)
    answer(work / "checked" / "gate", ["candidate"])
    before = dict(calls)
    result = until(Until.END, work)
    assert dict(calls) == before
    assert calls["check_form"] == len(SITES)
    assert calls["fingerprint"] == 0
    report = asyncio.run(opened.store.read(result.report, AggregationReport.FILE))
    assert AggregationReport.from_bytes(report).reason == "Aggregated"
    # A pod that finds the answers and nothing else makes the same.
    afresh = tmp_path / "afresh"
    answer(afresh / "checked" / "canary", SITES)
    answer(afresh / "checked" / "gate", ["candidate"])
    assert until(Until.END, afresh) == result


def test_what_another_update_left_is_not_taken(tmp_path: Path) -> None:
    """The request is the same for all runs of a pod; a folder that is not its own must not decide."""
    first, second = updates(), updates()
    for other in second:
        other["0"] = -2 * other["0"]
    results = []
    for work, made in ((tmp_path / "shared", first), (tmp_path / "shared", second), (tmp_path / "own", second)):
        answer(work / "checked" / "canary", SITES)
        opened = open_round(sent(made, Factor.B), Factor.B, {"rule": "DnC", "preAggregation": "ARC"}, canary=True)
        asyncio.run(run(opened.store, opened.request, work, Until.CANDIDATE, checked=work / "checked"))
        results.append((work / "gate" / "sites" / "candidate" / "adapter_model.safetensors").read_bytes())
    assert results[0] != results[1] == results[2]
