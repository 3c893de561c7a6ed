"""Process 1 of the node, in a process of its own."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

PROGRAM = """
import pathlib, sys
from concordat_devcluster.supervisor import Component, Supervisor
folder = pathlib.Path(sys.argv[1])
sh = lambda script: ["/bin/sh", "-c", f"cd {folder}; {script}"]
Supervisor([
    Component("saver", sh("trap 'sleep 0.3; echo saved > saved; exit' TERM; touch up; while :; do sleep 0.05; done"),
              stop_waits=True),
    Component("failing", sh("echo x >> tries; exit 1")),
    Component("waiting", sh("touch too-early"), may_start=lambda: False),
    Component("stubborn", sh("trap '' TERM; sleep 60")),
], folder, {"PATH": "/usr/bin:/bin"}).run(5)
"""


@pytest.fixture
def supervised(tmp_path: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", PROGRAM, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 20
    tries = tmp_path / "tries"
    while not ((tmp_path / "up").exists() and tries.exists() and len(tries.read_text().split()) > 1):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return process


def test_it_restarts_what_ends_and_waits_for_what_saves(supervised: subprocess.Popen[str], tmp_path: Path) -> None:
    supervised.send_signal(signal.SIGTERM)
    said, _ = supervised.communicate(timeout=10)
    assert supervised.returncode == 0
    assert (tmp_path / "saved").read_text() == "saved\n"
    assert not (tmp_path / "too-early").exists()
    assert "failing ended with 1; it starts again in" in said
    assert {log.stem for log in tmp_path.glob("*.log")} == {"saver", "failing", "stubborn"}
