"""`concordat aggregate` and `concordat screen` on plain files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from concordat.tensors import read_tensors, write_tensors
from tests.unit.cli.engine_run import Run, run

__all__ = ["run"]


@pytest.fixture
def updates(tmp_path: Path) -> list[Path]:
    """Five honest updates of norm about 1 and a sixth ten times as long."""
    rng = np.random.default_rng(0)
    paths = []
    for number in range(6):
        values = (0.2 + 0.1 * rng.normal(size=(4, 5))).astype(np.float32)
        path = tmp_path / f"u{number}.safetensors"
        path.write_bytes(write_tensors({"x": -10 * values if number == 5 else values}))
        paths.append(path)
    return paths


def test_the_default_rule_withstands_a_liar(run: Run, updates: list[Path], tmp_path: Path) -> None:
    code, said = run("aggregate", *updates, "-o", tmp_path / "out", "--report", tmp_path / "report.json")
    assert code == 0, said
    assert "6 of 6 updates" in said
    assert "ARC and DnC" in said
    found = read_tensors(tmp_path / "out")["x"]
    honest = np.mean([read_tensors(path)["x"] for path in updates[:5]], axis=0)
    assert np.abs(found - honest).max() < 0.1
    report = json.loads((tmp_path / "report.json").read_text())
    assert (report["rule"], report["remainingFaults"]) == ("DnC", 1)
    assert len(report["updates"]) == 6


def test_what_is_too_long_is_rejected_and_charged(run: Run, updates: list[Path], tmp_path: Path) -> None:
    code, said = run("aggregate", *updates, "-o", tmp_path / "out", "--max-norm", 2, "--rule", "CAF")
    assert code == 0, said
    assert "5 of 6 updates" in said
    assert f"above --max-norm: {updates[5]}" in said.replace("\n", "")


def test_more_above_the_norm_than_declared_is_held_and_never_the_plain_mean(
    run: Run, updates: list[Path], tmp_path: Path
) -> None:
    """Engine review, finding F5."""
    # A third liar, within the norm.
    updates[4].write_bytes(write_tensors({"x": -read_tensors(updates[4])["x"]}))
    updates[0].write_bytes(write_tensors({"x": 10 * read_tensors(updates[1])["x"]}))
    arguments = ("aggregate", *updates, "-o", tmp_path / "out", "--max-norm", 2, "--report", tmp_path / "report.json")
    code, said = run(*arguments)
    assert code == 1
    assert "2 of 6 updates are above --max-norm and --max-faulty is 1" in said.replace("\n", " ")
    assert not (tmp_path / "out").exists()
    report = json.loads((tmp_path / "report.json").read_text())
    assert (report["held"], report["remainingFaults"]) == (True, 1)
    code, said = run(*arguments, "--approve-held")
    assert code == 0, said
    assert "4 of 6 updates" in said
    honest = np.mean([read_tensors(path)["x"] for path in updates[1:4]], axis=0)
    assert np.abs(read_tensors(tmp_path / "out")["x"] - honest).max() < 0.15


def test_too_few_for_the_rule_is_told_with_the_arithmetic(run: Run, updates: list[Path], tmp_path: Path) -> None:
    code, said = run("aggregate", *updates, "-o", tmp_path / "out", "--max-faulty", 3)
    assert code == 1
    assert "needs 2 * 3 + 1 = 7 updates; there are 6" in said
    assert not (tmp_path / "out").exists()


def test_screen_shows_a_table_and_its_exit_code_tells(run: Run, updates: list[Path], tmp_path: Path) -> None:
    code, said = run("screen", *updates[:5], "--max-norm", 2)
    assert code == 0, said
    code, said = run("screen", *updates, "--max-norm", 2, "--report", tmp_path / "report.json")
    assert code == 1
    report = json.loads((tmp_path / "report.json").read_text())
    reasons = {row["name"]: row["reason"] for row in report["updates"]}
    assert reasons == {**dict.fromkeys(map(str, updates[:5]), "Verified"), str(updates[5]): "NormExceeded"}
    assert (report["rejected"], report["remainingFaults"]) == (1, 0)


def test_an_aggregate_sent_back_is_free_riding(run: Run, updates: list[Path], tmp_path: Path) -> None:
    code, said = run("screen", *updates[:5], "--max-norm", 2, "--previous", updates[0], "--report", tmp_path / "r")
    assert code == 1, said
    assert json.loads((tmp_path / "r").read_text())["updates"][0]["reason"] == "FreeRiding"


def test_the_table_fits_80_columns_and_says_why(run: Run, updates: list[Path], tmp_path: Path) -> None:
    long = tmp_path / ("a-site-with-quite-a-name-" * 3) / "update.safetensors"
    long.parent.mkdir()
    long.write_bytes(updates[0].read_bytes())
    code, said = run("screen", *updates, long, "--max-norm", 1234567, "--report", tmp_path / "report.json")
    assert code == 1
    assert max(map(len, said.splitlines())) <= 80
    assert "…" not in said
    rows = json.loads((tmp_path / "report.json").read_text())["updates"]
    for number in ("norm", "relativeNorm", "nearestCosine", "centreCosine"):
        assert f"{rows[1]['numbers'][number]:.3f}" in said.split()
    (rejected,) = (row for row in rows if row["reason"] != "Verified")
    assert "".join(f"{rejected['name']}: {rejected['message']}".split()) in "".join(said.split())


@pytest.mark.parametrize(
    ("data", "says"), [(None, "cannot be read"), (b"PK\x03\x04", "pickled or zipped"), (b"\xff" * 9, "truncated?")]
)
def test_a_file_that_is_no_safetensors_is_named(run: Run, tmp_path: Path, data: bytes | None, says: str) -> None:
    path = tmp_path / "bad"
    if data is not None:
        path.write_bytes(data)
    code, said = run("screen", path, "--max-norm", 1)
    assert code == 2
    assert str(path) in said.replace("\n", "")
    assert says in said.replace("\n", " ")


@pytest.mark.parametrize("command", [("screen", "--max-norm", 1), ("aggregate", "-o", "out")])
def test_a_plain_file_of_both_factors_is_refused_with_the_remedy(
    run: Run, tmp_path: Path, command: tuple[str, ...]
) -> None:
    """Issue 11: such files were averaged factor by factor, which is not the average of what the sites changed."""
    rng = np.random.default_rng(0)
    both = {
        f"q.lora_{f}.weight": rng.normal(size=shape).astype(np.float32) for f, shape in (("A", (2, 5)), ("B", (4, 2)))
    }
    one = tmp_path / "adapter_model.safetensors"
    one.write_bytes(write_tensors(both))
    code, said = run(*command, one, one)
    assert code == 2
    said = said.replace("\n", " ")
    assert f"{one} holds lora_A and lora_B" in said
    assert "give the folder that peft wrote" in said
    one.write_bytes(write_tensors({"q.lora_B.weight": both["q.lora_B.weight"]}))
    assert "holds lora_A" not in run(*command, one, one)[1]


def test_parent_and_rank_are_for_folders(run: Run, updates: list[Path], tmp_path: Path) -> None:
    for option in (("--parent", tmp_path), ("--rank", 8)):
        code, said = run("aggregate", *updates, "-o", tmp_path / "out", *option)
        assert code == 2
        assert "--parent and --rank are for adapter folders" in said.replace("\n", " ")
    code, said = run("aggregate", *updates, tmp_path, "-o", tmp_path / "out")
    assert code == 2
    assert f"{tmp_path} is a folder and {updates[0]} is none" in said.replace("\n", " ")
