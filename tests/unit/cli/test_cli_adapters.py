"""`concordat aggregate` and `screen` on adapter folders that peft wrote, proved on what peft loads of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.unit.cli.engine_run import Run, run
from tests.unit.lora.peft_folders import Dense, change, config, edit, factors, save

__all__ = ["run"]

pytestmark = [pytest.mark.xdist_group("torch"), pytest.mark.filterwarnings("ignore:Using Rank-Stabilized LoRA")]

MEAN = ("--rule", "Mean", "--max-faulty", 0)
KINDS: list[dict[str, Any]] = [
    {},
    {"dtype": "bfloat16", "r": 3},
    {"dtype": "float16", "r": 2},
    {"use_rslora": True, "lora_alpha": 3},
    {"r": 2, "rank_pattern": {"inner.first": 4}, "alpha_pattern": {"last": 5}},
    {"dtype": "bfloat16", "r": 1, "lora_alpha": 2},
]
"""Data types, ranks and scales, as six sites may have chosen them."""


def _error(one: Dense, other: Dense) -> float:
    return float(np.linalg.norm(one - other) / np.linalg.norm(other))


def test_the_mean_of_unlike_adapters_is_that_of_their_products(run: Run, tmp_path: Path) -> None:
    folders = [save(tmp_path / f"site{i}", i, **kind) for i, kind in enumerate(KINDS)]
    wanted = np.mean([change(folder) for folder in folders], axis=0)
    code, said = run("aggregate", *folders, "-o", tmp_path / "out", *MEAN)
    assert code == 1
    assert "it would lose" in said
    assert not (tmp_path / "out").exists()
    code, said = run("aggregate", *folders, "-o", tmp_path / "out", *MEAN, "--rank", 9, "--report", tmp_path / "r")
    assert code == 0, said
    assert "6 of 6 updates" in said
    assert "of the products B·A, at rank 9, which loses 0.0% of the energy" in said.replace("\n", " ")
    assert _error(change(tmp_path / "out"), wanted) < 1e-6
    assert json.loads((tmp_path / "r").read_text())["lora"] == {"factor": "Both", "rank": "9", "discardedEnergy": 0.0}
    assert config(tmp_path / "out")["r"] == 9


def test_the_rank_that_the_error_names_is_enough(run: Run, tmp_path: Path) -> None:
    folders = [save(tmp_path / f"site{i}", i, **kind) for i, kind in enumerate(KINDS)]
    said = run("aggregate", *folders, "-o", tmp_path / "out", *MEAN)[1].replace("\n", " ")
    rank = said.split("Give --rank ")[1].split(";")[0]
    code, said = run("aggregate", *folders, "-o", tmp_path / "out", *MEAN, "--rank", rank)
    assert code == 0, said
    assert 0 < _error(change(tmp_path / "out"), np.mean([change(folder) for folder in folders], axis=0)) < 0.05**0.5


@pytest.mark.parametrize("held", ["A", "B"])
def test_where_one_factor_is_equal_in_all_the_other_is_averaged_at_the_largest_rank(
    run: Run, tmp_path: Path, held: str
) -> None:
    largest = save(tmp_path / "site0", 0, r=5, lora_alpha=10)
    shared = {name: tensor for name, tensor in factors(largest).items() if f"lora_{held}" in name}
    folders = [largest]
    for i, rank in enumerate((5, 3, 2, 5, 4), 1):
        cut = {n: np.ascontiguousarray(t[:rank] if held == "A" else t[:, :rank]) for n, t in shared.items()}
        folders.append(save(tmp_path / f"site{i}", i, factors=cut, r=rank, lora_alpha=2 * i))
    code, said = run("aggregate", *folders, "-o", tmp_path / "out", *MEAN)
    assert code == 0, said
    assert f"of lora_{'B' if held == 'A' else 'A'} alone, at rank 5" in said
    assert _error(change(tmp_path / "out"), np.mean([change(folder) for folder in folders], axis=0)) < 1e-6
    loaded = factors(tmp_path / "out")
    assert all(np.array_equal(loaded[name], tensor) for name, tensor in shared.items())
    written = config(tmp_path / "out")
    assert (written["r"], written["lora_alpha"]) == (5, 10)


def test_the_largest_rank_of_each_module_is_written_where_no_site_has_them_all(run: Run, tmp_path: Path) -> None:
    whole = factors(save(tmp_path / "whole", 0, r=5))
    folders = []
    for i, ranks in enumerate(({"^first": 5, "inner.first": 1, "last": 2}, {"^first": 2, "inner.first": 4, "last": 2})):
        one = factors(save(tmp_path / f"shape{i}", 0, r=1, rank_pattern=ranks))
        shared = {name: whole[name][: len(t)] for name, t in one.items() if "lora_A" in name}
        folders.append(save(tmp_path / f"site{i}", i, factors=shared, r=1, rank_pattern=ranks))
    code, said = run("aggregate", *folders, "-o", tmp_path / "out", *MEAN)
    assert code == 0, said
    assert "of lora_B alone, at rank 2 to 5" in said
    assert _error(change(tmp_path / "out"), np.mean([change(folder) for folder in folders], axis=0)) < 1e-6
    written = config(tmp_path / "out")
    assert (written["r"], written["lora_alpha"]) == (5, 6)
    key = "^" + "inner.first".replace(".", "\\.")
    assert written["rank_pattern"] == {key: 4, "^" + "inner.last".replace(".", "\\."): 2}


def _trained_from(parent: Path, path: Path, seed: int, size: float = 0.02, **settings: Any) -> Path:
    """One site's adapter: the parent with small changes of both factors, mostly the same at all sites."""
    common, own = np.random.default_rng(99), np.random.default_rng(seed)
    start = factors(parent)
    moved = {
        name: start[name] + size * (common.normal(size=t.shape) + 0.1 * own.normal(size=t.shape))
        for name, t in start.items()
    }
    return save(path, 0, factors=moved, **settings)


@pytest.mark.parametrize("rule", [(), MEAN], ids=["default", "Mean"])
def test_with_a_parent_the_changes_are_averaged_at_its_rank_and_scale(
    run: Run, tmp_path: Path, rule: tuple[object, ...]
) -> None:
    parent = save(tmp_path / "parent", 7, lora_alpha=12)
    folders = [_trained_from(parent, tmp_path / f"site{i}", i, lora_alpha=12) for i in range(5)]
    changed = np.mean([change(folder) for folder in folders], axis=0) - change(parent)
    code, said = run(
        "aggregate", *folders, "--parent", parent, "-o", tmp_path / "out", *rule, "--report", tmp_path / "r"
    )
    assert code == 0, said
    lost = json.loads((tmp_path / "r").read_text())["lora"]["discardedEnergy"]
    assert 0 < lost < 0.05
    # The trimmed mean is not the mean, but near it where sites are alike.
    tolerance = lost**0.5 + (1e-4 if rule else 0.05)
    assert _error(change(tmp_path / "out") - change(parent), changed) < tolerance
    assert config(tmp_path / "out") == config(parent)


def test_the_default_rule_withstands_a_liar(run: Run, tmp_path: Path) -> None:
    parent = save(tmp_path / "parent", 7)
    folders = [_trained_from(parent, tmp_path / f"site{i}", i) for i in range(5)]
    honest = np.mean([change(folder) for folder in folders], axis=0) - change(parent)
    folders.append(_trained_from(parent, tmp_path / "liar", 5, -0.5))
    code, said = run("aggregate", *folders, "--parent", parent, "-o", tmp_path / "out")
    assert code == 0, said
    assert _error(change(tmp_path / "out") - change(parent), honest) < 0.3
    code, said = run("aggregate", *folders, "--parent", parent, "-o", tmp_path / "out", *MEAN)
    assert code == 1 or _error(change(tmp_path / "out") - change(parent), honest) > 1


def test_what_is_written_can_be_trained_on_and_aggregated_again(run: Run, tmp_path: Path) -> None:
    folders = [save(tmp_path / f"site{i}", i, r=2 + i % 2) for i in range(3)]
    assert run("aggregate", *folders, "-o", tmp_path / "out", *MEAN, "--rank", 9)[0] == 0
    wanted = change(tmp_path / "out")
    assert run("aggregate", tmp_path / "out", "-o", tmp_path / "again", *MEAN)[0] == 0
    assert _error(change(tmp_path / "again"), wanted) < 1e-6
    assert config(tmp_path / "again")["base_model_name_or_path"] == "tiny"


FAULTS: list[tuple[dict[str, Any], str]] = [
    ({"base": "huge"}, 'b/adapter_config.json: base_model_name_or_path is "huge", and "tiny" in'),
    ({"revision": "v2"}, 'revision is "v2", and "v1" in'),
    ({"target_modules": ["last"]}, 'target_modules is ["last"], and ["first", "last"] in'),
    ({"width": 8}, "the size of base_model.model.first is [8, 7], and [9, 7] in"),
    ({"fan_in_fan_out": True}, "fan_in_fan_out is true, and false in"),
    ({"use_dora": True}, "b/adapter_config.json: use_dora is True; only plain LoRA can be averaged"),
]


@pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to True")
@pytest.mark.parametrize(("settings", "says"), FAULTS, ids=[next(iter(settings)) for settings, _ in FAULTS])
def test_what_does_not_fit_is_named_with_file_field_and_both_values(
    run: Run, tmp_path: Path, settings: dict[str, Any], says: str
) -> None:
    one, other = save(tmp_path / "a", 1, revision="v1"), save(tmp_path / "b", 2, **{"revision": "v1"} | settings)
    if "fan_in_fan_out" in settings:
        edit(other, fan_in_fan_out=True)
    # The parent has to fit as well.
    for command in (("screen", "--max-norm", 9), ("aggregate", "-o", "out")):
        for folders in ((one, other), (one, "--parent", other)):
            code, said = run(*command, *folders)
            assert code == 2
            said = said.replace("\n", " ")
            assert says in said
            assert ": " in said.split(says)[1] or "leave it out" in said


def test_a_rank_that_is_not_that_of_the_tensors_is_named(run: Run, tmp_path: Path) -> None:
    one = save(tmp_path / "a", 1)
    edit(one, r=8)
    code, said = run("screen", one, "--max-norm", 9)
    assert code == 2
    said = said.replace("\n", " ")
    assert f"{one}/adapter_model.safetensors: " in said
    assert "but the rank by adapter_config.json is 8; correct r or rank_pattern" in said


@pytest.mark.parametrize("missing", ["adapter_config.json", "adapter_model.safetensors"])
def test_a_folder_that_peft_did_not_write_is_named(run: Run, tmp_path: Path, missing: str) -> None:
    one = save(tmp_path / "a", 1)
    (one / missing).unlink()
    code, said = run("screen", one, "--max-norm", 9)
    assert code == 2
    assert f"{one}/{missing} cannot be read: No such file or directory; " in said.replace("\n", " ")


def test_a_base_model_that_is_not_named_is_that_of_the_others(run: Run, tmp_path: Path) -> None:
    folders = [save(tmp_path / f"site{i}", i) for i in range(3)]
    edit(folders[1], base_model_name_or_path=None)
    assert run("screen", *folders, "--max-norm", 999)[0] == 0


def test_a_copy_is_found_whatever_its_factors(run: Run, tmp_path: Path) -> None:
    folders = [save(tmp_path / f"site{i}", i) for i in range(4)]
    gauge = np.random.default_rng(0).normal(size=(4, 4))
    turned = {
        name: np.linalg.inv(gauge) @ t if "lora_A" in name else t @ gauge for name, t in factors(folders[0]).items()
    }
    copy = save(tmp_path / "site4", 0, factors=turned)
    code, _ = run("screen", *folders, copy, "--max-norm", 999, "--report", tmp_path / "r")
    assert code == 1
    rows = {row["name"]: row for row in json.loads((tmp_path / "r").read_text())["updates"]}
    assert [rows[str(path)]["reason"] for path in (*folders, copy)] == ["Verified"] * 4 + ["NearDuplicate"]
    for path in folders:
        assert rows[str(path)]["numbers"]["norm"] == pytest.approx(np.linalg.norm(change(path)), rel=1e-5)


def test_the_last_aggregate_sent_back_is_found_with_and_without_a_parent(run: Run, tmp_path: Path) -> None:
    before = save(tmp_path / "before", 7)
    parent = _trained_from(before, tmp_path / "parent", 8)
    # The same step once more.
    start, once = factors(before), factors(parent)
    replay = save(tmp_path / "replay", factors={name: 2 * once[name] - start[name] for name in start})
    honest = [_trained_from(parent, tmp_path / f"site{i}", i, -0.02) for i in range(3)]
    for options in (("--parent", parent, "--previous", before), ("--previous", replay)):
        code, said = run("screen", *honest, replay, "--max-norm", 999, *options, "--report", tmp_path / "r")
        assert code == 1, said
        rows = {row["name"]: row for row in json.loads((tmp_path / "r").read_text())["updates"]}
        assert rows[str(replay)]["numbers"]["previousCosine"] > 0.98
