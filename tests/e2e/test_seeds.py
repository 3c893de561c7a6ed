"""Whether a round of the demo federation learns, over three seeds and two instruction sets; without a cluster."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

BENCH = Path(__file__).resolve().parents[2] / "bench" / "demo_seeds.py"
NOISE_PPM = 30_000
"""About two standard errors of the difference between two models on the same 360 examples."""
HOUR = 3600.0
"""Two minutes of training on two cores of our own; the limit is for a machine that is slow or busy."""


def test_the_candidate_beats_the_parent_and_training_alone(tmp_path: Path) -> None:
    """In a process of its own: torch stays out of this one."""
    figures = tmp_path / "figures.json"
    done = subprocess.run(
        [sys.executable, BENCH, "--no-centralized", "--json", figures],
        capture_output=True,
        text=True,
        check=False,
        timeout=HOUR,
    )
    print(done.stdout)
    assert done.returncode == 0, done.stderr
    found = json.loads(figures.read_text())
    assert [f["seed"] for f in found] == [0, 1, 2, 0, 1, 2]
    for f in found:
        (candidate,) = f["candidates"]
        assert candidate > f["parent"] + NOISE_PPM, f
        assert candidate > f["local_only_mean"] + NOISE_PPM, f
        assert f["refused"] == {"site-d": "NormExceeded"}, f
