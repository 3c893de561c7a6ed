"""`concordat policy check`: what a policy says, what is wrong with it, and whether it lets a round train here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from concordat_cli import policy_commands
from concordat_devcluster.paths import REPOSITORY
from tests.support.contracts import IMAGE, REF, contract
from tests.support.policies import policy
from tests.unit.cli.command_line import Run, run

__all__ = ["run"]

NIGHT = {"timeZone": "Europe/Berlin", "from": "20:00", "to": "06:00"}


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """Helm values that leave to the chart what it has a default for."""
    values = {
        "federations": [{"name": "digits", "dataClaim": "data"}],
        "policy": {
            "consent": {"allowedImages": [IMAGE]},
            "judging": {"image": IMAGE, "minQualityPpm": 500_000},
        },
    }
    return _write(tmp_path / "site.yaml", values)


def _write(path: Path, values: Any) -> Path:
    path.write_text(yaml.safe_dump(values))
    return path


def _changed(site: Path, **consent: Any) -> str:
    values = yaml.safe_load(site.read_text())
    values["policy"]["consent"] |= consent
    return str(_write(site.with_name("changed.yaml"), values))


def _contract(folder: Path, **changes: Any) -> str:
    path = folder / "contract.json"
    path.write_bytes(contract(**changes).to_bytes())
    return str(path)


def test_every_rule_is_said_in_words(run: Run, site: Path) -> None:
    done = run("policy", "check", _changed(site, hours=NIGHT, maxWallSecondsPerDay=7200))
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("Valid, with digest sha256:")
    for sentence in (
        "- Rounds of federation digits (federations).",
        "- One round asks for at most 1000 steps (consent.maxSteps) and 3600 s (consent.maxWallSeconds).",
        "together ask for at most 7200 s (consent.maxWallSecondsPerDay).",
        "- The site consents from 20:00 to 06:00 Europe/Berlin (consent.hours).",
        f"- Images that may train: {IMAGE} (consent.allowedImages).",
        "- Base packages of rounds and releases: any (allowedBases).",
        "- Jobs of rounds and releases run in any RuntimeClass (requiredRuntimeClass).",
        "- Good enough is a quality of at least 50.00 % (judging.minQualityPpm), at most 2.00 % below what is in use",
    ):
        assert sentence in done.out


def test_every_field_of_a_policy_is_in_the_words_and_on_the_page(run: Run, site: Path) -> None:
    said = run("policy", "check", str(site)).out
    page = (REPOSITORY / "docs/reference/policy.md").read_text(encoding="utf-8")
    schema = json.loads((REPOSITORY / "charts/concordat-site/values.schema.json").read_text())
    for name, part in schema["properties"]["policy"]["properties"].items():
        for field in part.get("properties", {"": {}}):
            path = f"{name}.{field}".rstrip(".")
            assert path in said, path
            assert f"`{path}`" in page, path


def test_the_digest_is_the_one_that_the_agent_signs(run: Run, tmp_path: Path) -> None:
    rules = policy(IMAGE)
    file = tmp_path / "policy.json"
    file.write_text(json.dumps(rules.wire()))
    assert f"digest {rules.digest}:" in run("policy", "check", str(file)).out


@pytest.mark.parametrize("example", ["site", "evaluator"])
def test_the_examples_are_valid(run: Run, example: str) -> None:
    assert run("policy", "check", str(REPOSITORY / f"examples/values/{example}.yaml")).code == 0


def test_every_wrong_field_is_named_with_its_remedy(run: Run, site: Path) -> None:
    done = run("policy", "check", _changed(site, maxSteps=0, maxStep=5, hours={**NIGHT, "from": 1200}))
    assert done.code == 2
    assert "has no valid policy; correct these fields:" in done.err
    assert "\n- consent.maxSteps: Input should be greater than or equal to 1, got 0" in done.err
    assert "\n- consent.maxStep is no rule that a policy has: correct its name, or remove it" in done.err
    assert '\n- consent.hours.from: write a time of day in quotes, from "00:00" to "23:59", got 1200' in done.err


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("policy: [", "is neither YAML nor JSON"),
        ("- 1", "holds no values"),
        ("{}", "- judging is missing: set it"),
        ("policy:", "- consent is missing: set it"),
        ("policy: 1", "- policy.json: Input should be an object, got 1"),
        ("policy: { consent: }", "- consent is missing: set it"),
    ],
)
def test_what_is_no_policy_is_told(run: Run, tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "site.yaml"
    file.write_text(text)
    done = run("policy", "check", str(file))
    assert done.code == 2
    assert says in done.err


def test_without_the_charts_defaults_values_are_not_checked(
    run: Run, site: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(policy_commands, "_CHART_VALUES", tmp_path / "none.yaml")
    done = run("policy", "check", str(site))
    assert done.code == 3
    assert "kubectl get configmap concordat-agent" in done.err


def test_a_contract_within_the_policy(run: Run, site: Path, tmp_path: Path) -> None:
    done = run("policy", "check", str(site), "--contract", _contract(tmp_path))
    assert (done.code, done.out) == (0, "Consents: no rule is against it, if the hub signed the contract.\n")


def test_every_broken_rule_is_named(run: Run, site: Path, tmp_path: Path) -> None:
    file = _changed(site, hours=NIGHT, maxSteps=10)
    done = run("policy", "check", file, "--contract", _contract(tmp_path, federation="letters"))
    assert done.code == 1
    assert done.out.startswith("Refuses: federation 'letters' is not among this site's federations; budget.maxSteps 20")
    assert "13:00 is outside this site's hours, 20:00 to 06:00 Europe/Berlin" in done.out


def test_a_round_that_waits_for_the_hours_gets_its_consent(run: Run, site: Path, tmp_path: Path) -> None:
    file = _changed(site, hours={**NIGHT, "from": "13:02"})
    done = run("policy", "check", file, "--contract", _contract(tmp_path))
    assert done.code == 0
    assert "it answers at 2026-11-24 12:02Z" in done.out


def test_what_only_the_agent_knows_is_said(run: Run, tmp_path: Path) -> None:
    rules = policy(IMAGE, {"maxWallSecondsPerDay": 3600}, allowedBases=[REF.digest])
    file = tmp_path / "policy.json"
    file.write_text(json.dumps(rules.wire()))
    done = run("policy", "check", str(file), "--contract", _contract(tmp_path))
    assert done.code == 0
    assert "Not known here: whether the site takes part in the federation" in done.out
    assert "Not known here: what the site consented to in the 24 hours before" in done.out


def test_what_is_no_contract_is_told(run: Run, site: Path, tmp_path: Path) -> None:
    file = tmp_path / "contract.json"
    file.write_text("{}")
    done = run("policy", "check", str(site), "--contract", str(file))
    assert done.code == 2
    assert "is no contract: contract.json: " in done.err
