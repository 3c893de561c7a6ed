"""docs/security.md names the tests that show what it says; they exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_tests_that_the_security_page_names_exist() -> None:
    named = re.findall(r"`(test_\w+)`", (ROOT / "docs/security.md").read_text())
    assert len(named) > 30
    text = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    there = set(re.findall(r"^(?:async )?def (test_\w+)", text, re.MULTILINE))
    assert sorted(set(named) - there) == []
