"""How the cluster commands become root, and do two things at once."""

from __future__ import annotations

import threading

import pytest

from concordat_cli import cluster_commands


def test_root_finds_the_programs_that_a_users_path_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Debian gives users no sbin folder, and modprobe is there."""
    monkeypatch.setenv("PATH", "/home/me/bin:/usr/bin")
    command = cluster_commands.elevated(["cluster", "up"])
    (path,) = [word for word in command if word.startswith("PATH=")]
    assert path == "PATH=/home/me/bin:/usr/bin:/usr/local/sbin:/usr/sbin:/sbin"


def test_work_beside_the_body_is_done_when_both_are(monkeypatch: pytest.MonkeyPatch) -> None:
    started, finished = threading.Event(), threading.Event()

    def work() -> None:
        started.set()
        finished.wait()

    with cluster_commands._meanwhile(work, True):
        assert started.wait(60)
        finished.set()


def test_an_error_of_the_work_beside_is_told() -> None:
    def work() -> None:
        raise ValueError("no disk left")

    with pytest.raises(ValueError, match="no disk left"), cluster_commands._meanwhile(work, True):
        pass
