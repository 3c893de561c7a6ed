"""What a user's mistake looks like: one line, an exit code, no traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


def run(*args: str, **env: str) -> subprocess.CompletedProcess[str]:
    code = "from concordat_cli.main import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *args],
        capture_output=True,
        text=True,
        env={**os.environ, **env},
        check=False,
    )


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        (("round", "show"), 2, "NAME"),
        (("demo", "--context", "kind-kind"), 2, "--context and --registry belong together"),
        (("demo", "--rounds", "0"), 2, "--rounds"),
        (("nonsense",), 2, "nonsense"),
    ],
)
def test_usage(args: tuple[str, ...], code: int, says: str) -> None:
    done = run(*args)
    assert done.returncode == code
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_no_cluster_is_exit_code_4(tmp_path: Path) -> None:
    config = tmp_path / "config"
    done = run("round", "show", "r1", "--kubeconfig", str(config))
    assert done.returncode == 4
    assert "concordat cluster up" in done.stderr
    assert "Traceback" not in done.stderr


def test_crds_prints_every_kind() -> None:
    done = run("crds")
    assert done.returncode == 0
    for plural in ("federationrounds", "sites", "updates", "releases", "releasechannels"):
        assert f"name: {plural}.concordat.dev" in done.stdout
