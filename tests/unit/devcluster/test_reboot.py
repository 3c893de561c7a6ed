"""Containers that were created and never started must not keep their pods Pending for ever after a reboot."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from concordat_devcluster.reboot import end_unstarted


def record(root: Path, name: str, content: str) -> Path:
    path = root / "io.containerd.grpc.v1.cri" / "containers" / name / "status"
    path.parent.mkdir(parents=True)
    path.write_text(content)
    return path


@pytest.mark.parametrize(
    ("status", "changed"),
    [
        ({"CreatedAt": 5, "StartedAt": 0, "FinishedAt": 0}, True),
        ({"CreatedAt": 5, "StartedAt": 6, "FinishedAt": 0}, False),
        ({"CreatedAt": 5, "StartedAt": 6, "FinishedAt": 7}, False),
        ({"CreatedAt": 5, "StartedAt": 0, "FinishedAt": 7}, False),
    ],
)
def test_a_container_that_never_started_counts_as_lost(tmp_path: Path, status: dict[str, Any], changed: bool) -> None:
    path = record(tmp_path, "one", json.dumps({"Version": "v1", "Pid": 0, **status}))
    assert end_unstarted(tmp_path) == changed
    assert json.loads(path.read_text())["StartedAt"] == (5 if changed else status["StartedAt"])
    assert end_unstarted(tmp_path) == 0


def test_a_record_that_cannot_be_read_is_left_alone(tmp_path: Path) -> None:
    path = record(tmp_path, "torn", '{"Version": "v1", "Cre')
    assert end_unstarted(tmp_path) == 0
    assert path.read_text() == '{"Version": "v1", "Cre'


def test_a_first_start_has_no_records(tmp_path: Path) -> None:
    assert end_unstarted(tmp_path / "containerd") == 0
