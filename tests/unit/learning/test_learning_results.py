"""A result is handed over whole or not at all."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from concordat_agent.workspace import Workspace
from concordat_learning import results
from concordat_learning.errors import TransientError

FILES = {"evidence.json": b"{}", "adapter_model.safetensors": b"weights"}


def test_the_agent_reads_what_was_published(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    workspace.prepare("job")
    workspace.empty_output("job")
    out = tmp_path / "work" / "job" / "out"
    results.publish(out, FILES)
    assert results.is_published(out)
    assert workspace.result("job", dict.fromkeys(FILES, 100)) == FILES


@pytest.mark.parametrize("step", ["fsync", "rename"])
def test_a_failure_at_any_step_leaves_no_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """However often it was synced or renamed before: no name of the result is visible until all is on the disk."""

    def fail(*arguments: object) -> None:
        assert not results.is_published(tmp_path)
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, step, fail)
        with pytest.raises(TransientError, match=r"cannot be written .*: No space left on device") as found:
            results.publish(tmp_path, FILES)
    assert found.value.code == 75
    assert not results.is_published(tmp_path)
    results.publish(tmp_path, FILES)
    assert {path.name: path.read_bytes() for path in (tmp_path / "result").iterdir()} == FILES
    assert [path.name for path in tmp_path.iterdir()] == ["result"]


def test_everything_is_synced_before_the_rename(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []
    sync, rename = os.fsync, os.rename

    def synced(descriptor: int) -> None:
        steps.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        sync(descriptor)

    def renamed(source: str, target: str) -> None:
        steps.append("rename")
        rename(source, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "rename", renamed)
    results.publish(tmp_path, FILES)
    assert steps == ["file", "file", "folder", "rename", "folder"]


def test_what_a_killed_pod_left_is_no_result(tmp_path: Path) -> None:
    (tmp_path / ".result-tmp").mkdir()
    (tmp_path / ".result-tmp" / "half").write_bytes(b"x")
    assert not results.is_published(tmp_path)
    results.publish(tmp_path, FILES)
    assert {path.name for path in (tmp_path / "result").iterdir()} == set(FILES)


@pytest.mark.parametrize("step", ["fsync", "rename"])
def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    path = tmp_path / "canary.json"
    results.write_file(path, b"old")

    def fail(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, step, fail)
        with pytest.raises(TransientError, match=r"canary\.json cannot be written: No space left on device"):
            results.write_file(path, b"new")
    assert path.read_bytes() == b"old"
    results.write_file(path, b"new")
    assert [(found.name, found.read_bytes()) for found in tmp_path.iterdir()] == [("canary.json", b"new")]


def test_a_volume_that_is_not_there_is_worth_a_retry(tmp_path: Path) -> None:
    with pytest.raises(TransientError, match=r"cannot be written to"):
        results.publish(tmp_path / "none", FILES)
