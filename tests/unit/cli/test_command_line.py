"""What a user's mistake looks like: one line, an exit code, no traceback."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from concordat_cli.errors import UserError
from tests.unit.cli.command_line import Done, Run, run

__all__ = ["run"]


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        (("round", "show"), 2, "Missing argument"),
        (("demo", "--context", "kind-kind"), 2, "--context and --registry belong together"),
        (("demo", "--registry", "localhost:5001"), 2, "--context and --registry belong together"),
        (("demo", "--rounds", "0"), 2, "--rounds"),
        (("nonsense",), 2, "nonsense"),
    ],
)
def test_usage(run: Run, args: tuple[str, ...], code: int, says: str) -> None:
    done = run(*args)
    assert done.code == code
    assert says in done.err


def test_what_looks_like_markup_in_an_error_is_shown_as_it_is(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str | None = None) -> None:
        raise UserError("no helper in one of [/usr/lib/podman]")

    monkeypatch.setattr("concordat_devcluster.cluster.list_all", fail)
    done = run("cluster", "status")
    assert done.code == 1
    assert "error: no helper in one of [/usr/lib/podman]" in done.err


def test_no_cluster_is_exit_code_4(run: Run, tmp_path: Path) -> None:
    config = tmp_path / "config"
    done = run("round", "show", "r1", "--kubeconfig", str(config))
    assert done.code == 4
    assert "concordat cluster up" in done.err


def test_version_is_that_of_the_project(run: Run) -> None:
    project = tomllib.loads((Path(__file__).resolve().parents[3] / "pyproject.toml").read_text())["project"]
    assert run("--version") == Done(0, f"concordat {project['version']}\n", "")


def test_help_says_what_the_program_is_and_its_exit_codes(run: Run) -> None:
    shown = " ".join(run("--help").out.split())
    assert "Federated adapter training" in shown
    assert "5 not found" in shown


def test_crds_prints_every_kind(run: Run) -> None:
    done = run("crds")
    assert done.code == 0
    for plural in ("federationrounds", "sites", "updates", "releases", "releasechannels"):
        assert f"name: {plural}.concordat.dev" in done.out
