"""`make soak`, short: a few rounds with faults on the real API server, registry and operator process."""

from __future__ import annotations

from bench.soak.run import soak
from concordat.api import Reason

FAULTS = ("kill operator", "delete job", "stop registry", "garbage")


async def test_rounds_with_faults_break_no_invariant_and_leave_nothing_behind() -> None:
    found = await soak(rounds=len(FAULTS), sites=5, seed=1, say=print, faults=FAULTS)
    assert found.wrong == []
    assert found.by_fault == dict.fromkeys(FAULTS, 1)
    assert found.ended[Reason.RELEASED] > 0
