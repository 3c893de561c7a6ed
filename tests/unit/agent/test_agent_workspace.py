"""What a trainer leaves is untrusted: links, pipes, folders, sizes, depth."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from concordat.protocol.canonical import sha256_digest
from concordat_agent.files import write_atomically
from concordat_agent.workspace import ResultError, Workspace

JOB = "digits-1-0123abcd"
LIMITS = {"evidence.json": 64}


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    made = Workspace(tmp_path)
    made.prepare(JOB)
    made.empty_output(JOB)
    return made


def _out(root: Path) -> Path:
    return root / "work" / JOB / "out"


def _result(root: Path) -> Path:
    folder = _out(root) / "result"
    folder.mkdir()
    return folder


def _missing_result(root: Path) -> None:
    pass


def _missing_file(root: Path) -> None:
    _result(root)


def _symbolic_link(root: Path) -> None:
    secret = root / "secret"
    secret.write_text("site key")
    (_result(root) / "evidence.json").symlink_to(secret)


def _hard_link(root: Path) -> None:
    secret = root / "secret"
    secret.write_text("site key")
    os.link(secret, _result(root) / "evidence.json")


def _pipe(root: Path) -> None:
    os.mkfifo(_result(root) / "evidence.json")


def _folder(root: Path) -> None:
    (_result(root) / "evidence.json").mkdir()


def _oversized(root: Path) -> None:
    (_result(root) / "evidence.json").write_bytes(b"x" * 65)


def _sparse(root: Path) -> None:
    with (_result(root) / "evidence.json").open("wb") as file:
        file.truncate(1 << 40)


def _linked_result(root: Path) -> None:
    elsewhere = root / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "evidence.json").write_text("{}")
    (_out(root) / "result").symlink_to(elsewhere)


def _linked_out(root: Path) -> None:
    elsewhere = root / "elsewhere"
    (elsewhere / "result").mkdir(parents=True)
    (elsewhere / "result" / "evidence.json").write_text("{}")
    _out(root).rmdir()
    _out(root).symlink_to(elsewhere)


def _result_is_a_file(root: Path) -> None:
    (_out(root) / "result").write_text("{}")


@pytest.mark.parametrize(
    ("leave", "says"),
    [
        (_missing_result, "result of job"),
        (_missing_file, "evidence.json cannot be opened"),
        (_symbolic_link, "evidence.json cannot be opened"),
        (_hard_link, "2 links"),
        (_pipe, "not a regular file"),
        (_folder, "not a regular file"),
        (_oversized, "65 bytes, at most 64"),
        (_sparse, "at most 64"),
        (_linked_result, "result of job"),
        (_linked_out, "out of job"),
        (_result_is_a_file, "result of job"),
    ],
)
def test_a_hostile_result_is_refused_in_words(
    tmp_path: Path, workspace: Workspace, leave: Callable[[Path], None], says: str
) -> None:
    leave(tmp_path)
    with pytest.raises(ResultError, match=says):
        workspace.result(JOB, LIMITS)


def test_a_plain_result_is_read_and_extra_files_are_ignored(tmp_path: Path, workspace: Workspace) -> None:
    folder = _result(tmp_path)
    (folder / "evidence.json").write_bytes(b"x" * 64)
    (folder / "nested").mkdir()
    (folder / "link").symlink_to("/etc/passwd")
    assert workspace.result(JOB, LIMITS) == {"evidence.json": b"x" * 64}


def test_the_job_may_write_out_whatever_the_umask(tmp_path: Path, workspace: Workspace) -> None:
    before = os.umask(0o077)
    try:
        workspace.empty_output(JOB)
    finally:
        os.umask(before)
    assert stat.S_IMODE(_out(tmp_path).stat().st_mode) == 0o2770


def test_inputs_are_written_whole(workspace: Workspace) -> None:
    workspace.write_input(JOB, "task.json", b"one")
    workspace.write_input(JOB, "task.json", b"two")
    assert os.listdir(workspace.inputs(JOB)) == ["task.json"]
    assert (workspace.inputs(JOB) / "task.json").read_bytes() == b"two"


@pytest.mark.parametrize("made", [_symbolic_link, _folder, _missing_file])
def test_a_job_gets_an_empty_folder_whatever_was_left_there(
    tmp_path: Path, workspace: Workspace, made: Callable[[Path], None]
) -> None:
    made(tmp_path)
    held = os.open(_out(tmp_path), os.O_RDONLY)
    workspace.empty_output(JOB)
    assert os.listdir(_out(tmp_path)) == []
    # As a pod that still runs has it: the folder, whatever its name is now.
    os.mkdir("late", dir_fd=held)
    os.close(held)
    assert os.listdir(_out(tmp_path)) == []
    workspace.empty_trash()


def test_an_output_folder_that_is_a_link_is_replaced(tmp_path: Path, workspace: Workspace) -> None:
    _out(tmp_path).rmdir()
    (tmp_path / "keep").mkdir()
    _out(tmp_path).symlink_to(tmp_path / "keep")
    workspace.empty_output(JOB)
    assert not _out(tmp_path).is_symlink()
    assert (tmp_path / "keep").is_dir()


STAGED = {"task.json": sha256_digest(b"task"), "parent/adapter.bin": sha256_digest(b"adapter")}


def _changed(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(b"other")


def _linked(folder: Path) -> None:
    (folder / "task.json").rename(folder.parent / "task.json")
    (folder / "task.json").symlink_to(folder.parent / "task.json")


def _piped(folder: Path) -> None:
    (folder / "task.json").unlink()
    os.mkfifo(folder / "task.json")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda folder: None, None),
        (_changed("task.json"), "task.json has other bytes"),
        (_changed("parent/adapter.bin"), "parent/adapter.bin has other bytes"),
        (_changed("parent/model.py"), "parent/model.py was not there"),
        (lambda folder: (folder / "task.json").unlink(), "task.json is gone"),
        (shutil.rmtree, "it is gone"),
        (_linked, "task.json has other bytes"),
        (_piped, "task.json has other bytes"),
    ],
)
def test_what_was_staged_is_compared_file_by_file(
    workspace: Workspace, change: Callable[[Path], object], says: str | None
) -> None:
    folder = workspace.inputs(JOB)
    (folder / "parent").mkdir()
    (folder / "parent" / "adapter.bin").write_bytes(b"adapter")
    workspace.write_input(JOB, "task.json", b"task")
    change(folder)
    assert workspace.difference(folder, STAGED) == says


def test_cleaning_removes_what_is_named(tmp_path: Path, workspace: Workspace) -> None:
    workspace.prepare("old")
    workspace.prepare("older")
    assert workspace.jobs() == {JOB, "old", "older"}
    workspace.discard({"old", "older"})
    assert workspace.jobs() == {JOB}
    workspace.empty_trash()
    assert os.listdir(tmp_path / "work") == [JOB]
    assert os.listdir(tmp_path / "trash") == []


def test_cleaning_an_empty_volume_does_nothing(tmp_path: Path) -> None:
    space = Workspace(tmp_path)
    assert space.jobs() == set()
    space.empty_trash()
    assert os.listdir(tmp_path) == []


def test_cleaning_follows_no_link_and_survives_depth_and_modes(tmp_path: Path, workspace: Workspace) -> None:
    keep = tmp_path / "keep"
    keep.mkdir()
    (keep / "file").write_text("stays")
    out = _out(tmp_path)
    (out / "link").symlink_to(keep)
    (out / "locked").mkdir()
    (out / "locked" / "inner").mkdir()
    (out / "locked" / "inner").chmod(0)
    (out / "locked").chmod(0)
    descriptor = os.open(out, os.O_RDONLY | os.O_DIRECTORY)
    for _ in range(1500):  # Deeper than a path may be long and Python may recurse.
        os.mkdir("deep", dir_fd=descriptor)
        inner = os.open("deep", os.O_RDONLY | os.O_DIRECTORY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = inner
    os.close(descriptor)
    workspace.discard({JOB})
    workspace.empty_trash()
    assert (keep / "file").read_text() == "stays"
    assert os.listdir(tmp_path / "trash") == []


@pytest.mark.attack("F11: a folder swapped for a link while it is tidied", "agent", "not followed")
def test_cleaning_follows_no_link_that_a_running_pod_puts_in_its_way(
    tmp_path: Path, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Security finding F11: a pod that outlives its Update swaps a folder for a link after it was listed."""
    keep = tmp_path / "keep"
    keep.mkdir(mode=0o750)
    (keep / "file").write_text("stays")
    (_out(tmp_path) / "swapped").mkdir()
    held = os.open(_out(tmp_path), os.O_RDONLY | os.O_DIRECTORY)
    workspace.discard({JOB})
    rename = os.rename

    def late(source: Any, target: Any, **folders: Any) -> None:
        if Path(source).name == "swapped":
            os.rmdir("swapped", dir_fd=held)
            os.symlink(keep, "swapped", dir_fd=held)
        rename(source, target, **folders)

    monkeypatch.setattr(os, "rename", late)
    workspace.empty_trash()
    os.close(held)
    assert (keep / "file").read_text() == "stays"
    assert stat.S_IMODE(keep.stat().st_mode) == 0o750
    assert os.listdir(tmp_path / "trash") == []


def test_cleaning_goes_on_where_a_crash_left_it(tmp_path: Path, workspace: Workspace) -> None:
    (tmp_path / "trash" / "7" / "deep" / "er").mkdir(parents=True)
    workspace.discard({JOB})
    workspace.empty_trash()
    assert os.listdir(tmp_path / "trash") == []


def test_an_atomic_write_does_not_follow_a_planted_link(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("kept")
    (tmp_path / ".record.tmp").symlink_to(victim)
    with pytest.raises(OSError, match="symbolic"):
        write_atomically(tmp_path / "record", b"new")
    assert victim.read_text() == "kept"
