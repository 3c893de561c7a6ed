"""Strikes, and when two of them put a site into quarantine."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from concordat.screening.strikes import LASTS
from concordat_operator.sites.quarantine import in_quarantine, remedy

NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)


def struck(days: float, why: str = "round r1, alerts Krum: odd") -> str:
    return f"{(NOW - timedelta(days=days)).isoformat(timespec='seconds')} {why}"


@pytest.mark.parametrize(
    ("found", "ends"),
    [
        ({}, {}),
        # Finding F4: one strike was for ever, and honest sites meet one, too.
        ({"site-a.u1": struck(0)}, {}),
        ({"site-a.u1": struck(0), "site-b.u1": struck(0)}, {}),
        ({"site-a.u1": struck(20), "site-a.u2": struck(1)}, {"site-a": 10}),
        ({"site-a.u1": struck(31), "site-a.u2": struck(1)}, {}),
        ({"site-a.u1": struck(31), "site-a.u2": struck(20), "site-a.u3": struck(1)}, {"site-a": 10}),
        # Three valid ones: until only one is left.
        ({"site-a.u1": struck(25), "site-a.u2": struck(20), "site-a.u3": struck(1)}, {"site-a": 10}),
        # An admin's own word, and what nobody can read the age of.
        ({"site-a": "They asked for it."}, {"site-a": None}),
        ({"site-a.u1": "they asked", "site-a.u2": struck(400)}, {}),
        ({"site-a.u1": "they asked", "site-a.u2": "twice"}, {"site-a": None}),
        ({"site-a.u1": "2026-11-28T12:00:00 no zone", "site-a.u2": struck(1)}, {"site-a": 29}),
    ],
)
def test_two_strikes_within_thirty_days_are_a_quarantine(found: dict[str, str], ends: dict[str, int | None]) -> None:
    judged = in_quarantine(found, NOW)
    wanted = {site: None if days is None else NOW + timedelta(days=days) for site, days in ends.items()}
    assert {site: quarantine.ends for site, quarantine in judged.items()} == wanted


def test_a_quarantine_says_why_when_it_ends_and_what_ends_it_at_once() -> None:
    found = in_quarantine({"site-a.u1": struck(20, "round r1, alerts Krum: odd"), "site-a.u2": struck(1)}, NOW)[
        "site-a"
    ]
    assert found.why == (
        "Suspected of poisoning 2 times in 30 days: round r1, alerts Krum: odd; round r1, alerts Krum: odd. "
        "It ends at 2026-12-09 12:00Z."
    )
    assert remedy("hub", found) == (
        "kubectl -n hub patch configmap concordat-quarantine --type=json -p "
        '\'[{"op":"remove","path":"/data/site-a.u1"},{"op":"remove","path":"/data/site-a.u2"}]\''
    )


@given(st.lists(st.floats(0, 60), max_size=6))
def test_a_quarantine_ends_when_fewer_than_two_strikes_are_valid(days: list[float]) -> None:
    found = {f"site-a.u{number}": struck(age) for number, age in enumerate(days)}
    valid = sum(timedelta(days=age) < LASTS for age in days)
    quarantine = in_quarantine(found, NOW).get("site-a")
    assert (quarantine is not None) is (valid >= 2)
    if quarantine is not None and quarantine.ends is not None:
        assert in_quarantine(found, quarantine.ends - timedelta(seconds=1)) != {}
        assert in_quarantine(found, quarantine.ends) == {}
