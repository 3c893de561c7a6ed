"""Settings of the property tests, and of the libraries of learning."""

from __future__ import annotations

import os
import sys
from collections.abc import Generator

import pytest
from hypothesis import HealthCheck, settings

# A slow machine is no bug: how long an example takes decides nothing. Fifty examples keep the inner loop short; a hunt
# takes more: HYPOTHESIS_MAX_EXAMPLES=2000 make unit
settings.register_profile(
    "concordat",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    max_examples=int(os.environ.get("HYPOTHESIS_MAX_EXAMPLES", "50")),
)
settings.load_profile("concordat")

# The workers of pytest share the processors. More threads than those wait for each other, a hundred times as long as
# they work: test models are tiny. Read when torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Fail a module that imports torch when it is collected: every worker does that, and takes ten seconds for it."""
    before = "torch" in sys.modules
    report = yield
    if "torch" in sys.modules and not before:
        report.outcome = "failed"
        report.longrepr = (
            "It imports torch, itself or through another module. Import that in the test or fixture that needs it, "
            'and mark the tests pytest.mark.xdist_group("torch"), so that one worker runs them all.'
        )
    return report
