"""A full collection does not visit what the imports made."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import gc
import concordat_operator.main
from concordat.controller import garbage
before = len(gc.get_objects())
garbage.tame()
print(before, len(gc.get_objects()), gc.get_threshold()[0])
"""


def test_what_the_imports_made_is_not_collected_again() -> None:
    """Section C of the review: a full collection held the loop for half a second, on a busy machine."""
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    before, after, threshold = (int(word) for word in done.stdout.split())
    assert after < before / 10
    assert threshold > 700
