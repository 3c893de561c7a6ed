"""How the benches count: writes from the audit log, own times, gaps between Jobs, goals."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.federation.audit import AGENTS, OPERATOR, OTHERS, Write, count, first_useful, per_site
from bench.federation.nodes import Ran
from bench.recovery.measure import gaps
from bench.scale.measure import Measured, own_seconds
from bench.scale.report import goals, lines

USERS = {"hub": OPERATOR, "sites": AGENTS}


def entry(user: str, verb: str, resource: str, second: int = 0, code: int = 200, **about: str) -> str:
    """Return a line of the audit log."""
    said: dict[str, Any] = {
        "verb": verb,
        "user": {"username": user},
        "objectRef": {"resource": resource, **about},
        "responseStatus": {"code": code},
        "requestReceivedTimestamp": f"2026-01-01T00:00:{second:02}.000000Z",
    }
    return json.dumps(said) + "\n"


def test_writes_are_counted_by_who_and_what_and_only_those_that_succeeded() -> None:
    found = count(
        [
            entry("hub", "create", "updates"),
            entry("hub", "patch", "updates", subresource="status"),
            entry("sites", "patch", "leases"),
            entry("sites", "patch", "updates", code=409, subresource="status"),
            entry("somebody", "create", "events"),
        ],
        USERS,
    )
    assert found == {
        Write(OPERATOR, "create", "updates"): 1,
        Write(OPERATOR, "patch", "updates/status"): 1,
        Write(AGENTS, "patch", "leases"): 1,
        Write(OTHERS, "create", "events"): 1,
    }
    assert per_site(found, sites=2) == 1.0


def test_the_first_useful_write_is_no_lease_no_event_and_after_the_kill(tmp_path: Path) -> None:
    log = tmp_path / "audit.log"
    log.write_text(
        entry("hub", "create", "updates", 1)
        + entry("hub", "update", "leases", 3)
        + entry("hub", "create", "events", 4)
        + entry("sites", "patch", "updates", 5)
        + entry("hub", "patch", "updates", 6)
        + entry("hub", "patch", "updates", 7)[:20]
    )
    after = datetime(2026, 1, 1, 0, 0, 2, tzinfo=UTC)
    assert first_useful(log, 0, USERS, after) == datetime(2026, 1, 1, 0, 0, 6, tzinfo=UTC)
    assert first_useful(log, 0, USERS, datetime(2026, 1, 1, 0, 0, 6, tzinfo=UTC)) is None


RAN = [
    Ran("a", "r", "trainer", started=2, ended=12, own=10),
    Ran("b", "r", "trainer", started=3, ended=9, own=6),
    Ran("concordat", "r", "aggregator", started=14, ended=20),
    Ran("evaluator", "r", "evaluator", started=23, ended=25, own=2),
    Ran("a", "r", "evaluator", started=26, ended=30, own=4),
    Ran("b", "r", "evaluator", started=27, ended=29, own=2),
]


def test_the_sites_own_time_is_that_of_the_longest_jobs_and_the_aggregator_is_none_of_theirs() -> None:
    assert own_seconds(RAN) == (10 + 2 + 4, 10 + 2)


def test_the_gaps_are_the_seconds_in_which_no_job_runs() -> None:
    assert list(gaps(RAN, started=1, ended=31).values()) == [1, 2, 3, 1, 1]


def test_goals_are_judged_at_the_largest_round_and_a_round_that_did_not_end_misses_them() -> None:
    done: dict[str, float | None] = {"adopted by all": 1.0}
    small = Measured(100, stages=done, ended=100, own_until_end=70, operator_cpu=10, longest_block=0.01)
    large = Measured(1000, stages=done, ended=400, own_until_end=70, operator_cpu=110, longest_block=0.2)
    missed = [goal.what for goal in goals([small, large]) if "missed" in goal.row[-1]]
    late, block = (
        "seconds beyond the sites' own time until the round ends",
        "longest block of the operator's event loop, ms",
    )
    assert missed == [late, block]
    assert "missed" in goals([Measured(1000, stages={"asked": None})])[0].row[-1]
    assert any(line.startswith("| asked | – | – |") for line in lines([small, large]))
