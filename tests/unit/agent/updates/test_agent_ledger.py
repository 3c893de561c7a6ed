"""The agent's record of its consents: it lasts, counts each contract once, and forgets what no round needs."""

from __future__ import annotations

import json
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from concordat_agent.updates.ledger import Ledger, LedgerError

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
DAY, HOUR = timedelta(days=1), timedelta(hours=1)


def digest(number: int) -> str:
    return f"sha256:{number:064x}"


def test_a_consent_counts_for_a_day_and_outlives_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "consents.json"
    Ledger(path).enter(digest(1), NOON, 600)
    ledger = Ledger(path)
    assert ledger.at(digest(1)) == NOON
    assert ledger.at(digest(2)) is None
    assert ledger.spent_seconds(digest(2), NOON) == 600
    assert ledger.spent_seconds(digest(2), NOON + DAY - timedelta(seconds=1)) == 600
    assert ledger.spent_seconds(digest(2), NOON + DAY) == 0


def test_the_same_contract_counts_once_and_not_against_itself(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "consents.json")
    ledger.enter(digest(1), NOON, 600)
    ledger.enter(digest(1), NOON + HOUR, 600)
    assert ledger.at(digest(1)) == NOON
    assert ledger.spent_seconds(digest(1), NOON) == 0
    assert ledger.spent_seconds(digest(2), NOON + HOUR) == 600


def test_a_later_consent_does_not_count_against_an_earlier_one(tmp_path: Path) -> None:
    """Job and update are looked at again with the whole policy, when other rounds may have come."""
    ledger = Ledger(tmp_path / "consents.json")
    for number in (1, 2, 3):
        ledger.enter(digest(number), NOON + number * HOUR, 600)
    assert [ledger.spent_seconds(digest(number), NOON + number * HOUR) for number in (1, 2, 3)] == [0, 600, 1200]


def test_what_no_round_needs_any_more_is_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "consents.json"
    ledger = Ledger(path)
    ledger.enter(digest(1), NOON, 600)
    ledger.enter(digest(2), NOON + 7 * DAY, 600)
    assert ledger.at(digest(1)) == NOON, "its round may go on for a week"
    ledger.enter(digest(3), NOON + 8 * DAY, 600)
    assert len(json.loads(path.read_bytes())["consents"]) == 2


def test_a_damaged_record_is_not_taken_for_an_empty_one(tmp_path: Path) -> None:
    path = tmp_path / "consents.json"
    path.write_text('{"consents":[{}]}')
    with pytest.raises(LedgerError, match=r"consents\.json is no record of consents"):
        Ledger(path)


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(1, 1000), st.integers(0, 40)), max_size=20),
    st.integers(500, 2000),
)
def test_a_site_that_asks_the_ledger_first_never_spends_more_than_the_day_allows(
    asked: list[tuple[int, int, int]], most: int
) -> None:
    """Contracts come again, the agent restarts at each, and up to 40 hours pass between."""
    given_at: dict[int, tuple[datetime, int]] = {}
    now = NOON
    with tempfile.TemporaryDirectory() as folder:
        for number, seconds, hours in asked:
            now += hours * HOUR
            ledger = Ledger(Path(folder) / "consents.json")
            at = ledger.at(digest(number)) or now
            wall_seconds = given_at.get(number, (at, seconds))[1]
            if ledger.spent_seconds(digest(number), at) + wall_seconds <= most:
                ledger.enter(digest(number), at, wall_seconds)
                given_at.setdefault(number, (at, wall_seconds))
                # A consent once given is given again.
                again = Ledger(Path(folder) / "consents.json")
                assert again.spent_seconds(digest(number), at) + wall_seconds <= most
            window = sum(seconds for at, seconds in given_at.values() if now - DAY < at <= now)
            assert window <= most
