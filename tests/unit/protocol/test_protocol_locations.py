"""The charts grant rights for the names that the programs use."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from concordat.protocol import locations

CHARTS = Path(__file__).parents[3] / "charts"


@pytest.mark.parametrize("name", [locations.AGENT_LEASE, locations.TRUST_CONFIGMAP])
def test_rights_are_granted_by_name(name: str) -> None:
    templates = [path.read_text() for path in sorted(CHARTS.glob("*/templates/*.yaml"))]
    assert any(re.search(rf"resourceNames: \[[^]]*\b{name}\b", text) for text in templates)


def test_a_sites_folders_and_repositories_are_its_own() -> None:
    assert locations.site_repository("digits", "uid", "site-a") == "digits/rounds/uid/site-a"
    assert locations.inputs_folder("r1") == "work/r1/in"
    assert locations.outputs_folder("r1") == "work/r1/out"
    assert locations.base_folder("sha256:" + "0123456789abcdef" * 4) == "base/" + "0123456789abcdef" * 4
