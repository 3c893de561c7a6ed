"""examples/values/ installs as it is, but for what only its user knows."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from concordat.api import Site
from concordat.lineage import Trust
from concordat_agent.policy import SitePolicy
from tests.support.helm import Helm

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples/values"
CHARTS = {"hub": ("concordat-operator", "concordat"), "site": ("concordat-site", "my-site")}
CHARTS |= {"evaluator": ("concordat-site", "evaluator")}

Render = Callable[[str], list[dict[str, Any]]]


@pytest.fixture(scope="session")
def rendered(helm: Helm) -> Render:
    def of(example: str) -> list[dict[str, Any]]:
        chart, namespace = CHARTS[example]
        values = yaml.safe_load((EXAMPLES / f"{example}.yaml").read_text())
        return [o for o in yaml.safe_load_all(helm.render(chart, values, namespace)) if o]

    return of


def test_every_example_is_tested() -> None:
    assert {path.stem for path in EXAMPLES.iterdir()} == set(CHARTS)


@pytest.mark.parametrize("example", CHARTS)
def test_it_renders_to_valid_objects(rendered: Render, example: str) -> None:
    for item in rendered(example):
        if item["kind"] == "Site":
            Site.model_validate(item)
        else:
            kubernetes_validate.validate(item, "1.34", strict=True)


@pytest.mark.parametrize("example", CHARTS)
def test_only_its_user_can_fill_in_images(rendered: Render, example: str) -> None:
    text = yaml.safe_dump_all(rendered(example))
    assert set(re.findall(r"@sha256:([0-9a-f]{64})", text)) == {"0" * 64}


@pytest.mark.parametrize(
    ("example", "role", "channel", "evaluators"),
    [("site", "Trainer", "stable", {"evaluator"}), ("evaluator", "Evaluator", None, set())],
)
def test_a_site_trusts_and_allows_what_its_values_say(
    rendered: Render, example: str, role: str, channel: str | None, evaluators: set[str]
) -> None:
    objects = {(o["kind"], o["metadata"]["name"]): o for o in rendered(example)}
    site = Site.model_validate(objects["Site", CHARTS[example][1]])
    assert (site.spec.role, site.spec.channel) == (role, channel)
    data = objects["ConfigMap", "concordat-agent"]["data"]
    assert set(Trust.from_json(data["trust.json"]).evaluators) == evaluators
    consent = SitePolicy.from_json(data["policy.json"]).consent
    assert len(consent.allowed_images) == 1, "a site to start from allows one image, not any"
