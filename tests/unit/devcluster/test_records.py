"""Whether a cluster runs: decided from its records, which may be of another boot or of another process."""

from __future__ import annotations

import os
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from concordat_devcluster import records
from concordat_devcluster.errors import DevclusterError
from concordat_devcluster.launch import node_ready, outdated_pods
from concordat_devcluster.records import Run, State

BEGAN = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return records.state_folder("demo")


def test_absent_stopped_running(state: Path) -> None:
    assert records.state_of(state) is State.ABSENT
    assert records.names() == []
    records.write_slot(state, 5)
    assert records.state_of(state) is State.STOPPED
    assert (records.names(), records.read_slot(state)) == (["demo"], 5)
    records.write_run(state, Run.of(os.getpid(), Path("/tools")))
    assert records.state_of(state) is State.RUNNING
    records.forget_run(state)
    assert records.state_of(state) is State.STOPPED


@pytest.mark.parametrize(
    "change",
    [{"boot": "an earlier one"}, {"started": 1}, {"pid": 2**22 + 1}],
    ids=["rebooted", "the id is another process now", "dead"],
)
def test_crashed(state: Path, change: dict[str, Any]) -> None:
    run = Run.of(os.getpid(), Path("/tools"))
    records.write_slot(state, 0)
    records.write_run(state, Run(**{**vars(run), **change}))
    assert records.state_of(state) is State.CRASHED


def test_a_zombie_does_not_run() -> None:
    with subprocess.Popen(["true"]) as child:
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert records.start_time(child.pid) is None


def test_half_written_records(state: Path) -> None:
    records.write_slot(state, 0)
    (state / "run.json").write_text('{"pid": 1')
    assert records.state_of(state) is State.CRASHED
    (state / "cluster.json").write_text("")
    with pytest.raises(DevclusterError, match=r"cluster\.json is damaged"):
        records.state_of(state)


@pytest.mark.parametrize("name", ["", "Demo", "a/b", "..", "-a", "a-", "x" * 31])
def test_names_that_are_refused(name: str) -> None:
    with pytest.raises(DevclusterError, match="no name for a cluster"):
        records.state_folder(name)


def _node(status: str, said: str) -> dict[str, Any]:
    return {"status": {"conditions": [{"type": "Ready", "status": status, "lastHeartbeatTime": said}]}}


@pytest.mark.parametrize(
    ("node", "ready"),
    [
        (_node("True", "2026-11-24T12:00:05Z"), True),
        (_node("False", "2026-11-24T12:00:05Z"), False),
        (_node("True", "2026-11-24T11:59:59Z"), False),
        ({}, False),
    ],
    ids=["ready", "not ready", "ready in its last life", "no node yet"],
)
def test_readiness_of_the_node(node: dict[str, Any], ready: bool) -> None:
    assert node_ready(node, BEGAN) is ready


def _pod(name: str, state: dict[str, Any]) -> dict[str, Any]:
    return {"metadata": {"name": name}, "status": {"containerStatuses": [{"state": state}]}}


def test_pods_whose_status_is_of_the_last_life() -> None:
    old, new = {"startedAt": "2026-11-24T11:00:00Z"}, {"startedAt": "2026-11-24T12:00:09Z"}
    pods = [_pod("old", {"running": old}), _pod("new", {"running": new}), _pod("ended", {"terminated": {}})]
    assert outdated_pods({"items": [*pods, {"metadata": {"name": "pending"}}]}, BEGAN) == ["old"]
    assert outdated_pods({}, BEGAN) is None
