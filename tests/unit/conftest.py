"""Settings of the property tests, and of the libraries of learning."""

from __future__ import annotations

import os

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
