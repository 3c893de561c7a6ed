"""The hours in which a site consents, over midnight and where local clocks jump."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from concordat_agent.hours import Hours

ZONES = ("UTC", "Europe/Berlin", "America/St_Johns", "Australia/Lord_Howe", "Pacific/Apia", "Asia/Kathmandu")
DAY, MINUTE = timedelta(days=1), timedelta(minutes=1)

minutes = st.integers(0, 24 * 60 - 1)
moments = st.datetimes(datetime(2026, 1, 1), datetime(2027, 12, 31), timezones=st.just(UTC))  # noqa: DTZ001


def hours(begin: str, end: str, zone: str = "Europe/Berlin") -> Hours:
    return Hours.model_validate({"timeZone": zone, "from": begin, "to": end})


def clock(minute: int) -> str:
    return f"{minute // 60:02}:{minute % 60:02}"


@pytest.mark.parametrize(
    ("begin", "end", "moment", "within"),
    [
        ("20:00", "06:00", "2026-11-24T18:59:59", False),
        ("20:00", "06:00", "2026-11-24T19:00", True),
        ("20:00", "06:00", "2026-11-24T23:30", True),
        ("20:00", "06:00", "2026-11-25T04:59:59", True),
        ("20:00", "06:00", "2026-11-25T05:00", False),
        ("20:00", "06:00", "2026-07-24T18:00", True),  # An hour earlier in summer.
        ("18:00", "00:00", "2026-11-24T22:59", True),
        ("18:00", "00:00", "2026-11-24T23:00", False),
        ("09:00", "17:00", "2026-11-24T12:00", True),
        ("09:00", "17:00", "2026-11-24T16:00", False),
        # In the night to 25 October the hour from 02:00 comes twice, and both count.
        ("02:00", "03:00", "2026-10-25T00:30", True),
        ("02:00", "03:00", "2026-10-25T01:30", True),
        ("02:00", "03:00", "2026-10-25T02:00", False),
    ],
)
def test_within(begin: str, end: str, moment: str, within: bool) -> None:
    assert hours(begin, end).include(datetime.fromisoformat(f"{moment}+00:00")) is within


@pytest.mark.parametrize(
    ("begin", "end", "moment", "opening"),
    [
        ("20:00", "06:00", "2026-11-24T12:00:30", "2026-11-24T19:00"),
        ("20:00", "06:00", "2026-11-24T20:00:30", "2026-11-24T20:00:30"),
        # In the night to 29 March the hour from 02:00 is left out: the hours begin where it would have.
        ("02:30", "06:00", "2026-03-28T12:00", "2026-03-29T01:00"),
        # What lies in it altogether comes the next day.
        ("02:15", "02:45", "2026-03-28T12:00", "2026-03-30T00:15"),
        ("02:30", "06:00", "2026-10-24T12:00", "2026-10-25T00:30"),
    ],
)
def test_the_next_opening(begin: str, end: str, moment: str, opening: str) -> None:
    asked = datetime.fromisoformat(f"{moment}+00:00")
    expected = datetime.fromisoformat(f"{opening}+00:00")
    span = hours(begin, end)
    assert span.next_opening(asked, asked + 7 * DAY) == expected
    assert span.next_opening(asked, expected + MINUTE) == expected
    if expected > asked:
        assert span.next_opening(asked, expected) is None


@given(minutes, minutes, moments, st.sampled_from(ZONES))
def test_a_moment_is_within_one_of_two_spans_that_share_the_day(
    begin: int, end: int, moment: datetime, zone: str
) -> None:
    if begin != end:
        span, rest = hours(clock(begin), clock(end), zone), hours(clock(end), clock(begin), zone)
        assert span.include(moment) is not rest.include(moment)
        since = (moment.astimezone(ZoneInfo(zone)).hour * 60 + moment.astimezone(ZoneInfo(zone)).minute - begin) % 1440
        assert span.include(moment) is (since < (end - begin) % 1440)


@given(minutes, st.integers(1, 24 * 60 - 1), moments, st.sampled_from(ZONES))
def test_an_opening_is_the_first_moment_within_the_hours(begin: int, length: int, moment: datetime, zone: str) -> None:
    span = hours(clock(begin), clock((begin + length) % 1440), zone)
    opening = span.next_opening(moment, moment + 7 * DAY)
    assert opening is not None
    assert moment <= opening < moment + 3 * DAY
    assert span.include(opening)
    assert opening == moment or not span.include(opening - timedelta(seconds=1))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"timeZone": "Berlin"}, "no such time zone here: take a name of the tz database"),
        ({"timeZone": "../../etc/passwd"}, "no such time zone"),
        ({"timeZone": "Europe"}, "no such time zone"),
        ({"from": 1200}, "write a time of day in quotes"),
        ({"from": "8:00"}, "write a time of day in quotes"),
        ({"to": "24:00"}, 'from "00:00" to "23:59"'),
        ({"to": "20:00"}, "which is no time at all"),
        ({"until": "06:00"}, "Extra inputs are not permitted"),
    ],
)
def test_wrong_hours_are_refused(change: dict[str, object], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        Hours.model_validate({"timeZone": "Europe/Berlin", "from": "20:00", "to": "06:00", **change})
