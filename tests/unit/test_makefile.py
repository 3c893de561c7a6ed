"""`make help` is how one finds a target."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_help_lists_every_target_once_in_a_group_and_in_80_columns() -> None:
    makefile = (ROOT / "Makefile").read_text()
    phony = re.findall(r"^\.PHONY:(.*)$", makefile, re.MULTILINE)
    shown = subprocess.run(
        ["make", "--no-print-directory", "help"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    lines = re.findall(r"^  make (\S+) +(\S.*)$", shown, re.MULTILINE)
    assert sorted(target for target, _ in lines) == sorted(" ".join(phony).split())
    columns = {line.index(text) for line in shown.splitlines() for target, text in lines if f"make {target} " in line}
    assert len(columns) == 1, "every explanation begins in the same column"
    assert max(len(line) for line in shown.splitlines()) <= 80
    assert re.findall(r"^\S.*$", shown, re.MULTILINE) == ["Try it", "Develop", "Test", "Measure", "Maintain"]


def test_every_target_that_is_a_word_is_phony() -> None:
    """A file of that name would otherwise stop it; and the test above would not see it."""
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z0-9-]+):(?!=)", makefile, re.MULTILINE))
    phony = set(" ".join(re.findall(r"^\.PHONY:(.*)$", makefile, re.MULTILINE)).split())
    assert targets == phony
