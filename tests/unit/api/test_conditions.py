"""ConditionSet: what makes a status write-once per fact."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from concordat.api import Condition, ConditionSet, ConditionType, Reason, find, is_false, is_true

START = datetime(2026, 11, 24, 12, 0, 0, tzinfo=UTC)
TYPES = (ConditionType.READY, ConditionType.STALLED, ConditionType.TRAINED)

Observation = tuple[ConditionType, bool | None, Reason, str]
observations: st.SearchStrategy[list[Observation]] = st.lists(
    st.tuples(
        st.sampled_from(TYPES), st.sampled_from([True, False, None]), st.sampled_from(Reason), st.text(max_size=20)
    ),
    max_size=12,
)


def after(observed: list[Condition], steps: list[Observation], seconds: int, generation: int = 1) -> list[Condition]:
    conditions = ConditionSet(observed, generation, START + timedelta(seconds=seconds, microseconds=123))
    for step in steps:
        conditions.set(*step)
    return conditions.list()


@given(observations, st.integers(0, 1000))
def test_the_same_facts_later_are_the_same_list(steps: list[Observation], later: int) -> None:
    last = {step[0]: step for step in steps}
    first = after([], list(last.values()), 0)
    assert after(first, list(last.values()), later) == first


@given(observations, observations)
def test_transition_time_moves_only_with_the_status(before: list[Observation], then: list[Observation]) -> None:
    old = after([], before, 0)
    new = after(old, list({step[0]: step for step in then}.values()), 60, generation=2)
    for condition in new:
        previous = find(old, ConditionType(condition.type))
        kept = previous is not None and previous.status is condition.status
        assert condition.last_transition_time == (START if kept or condition in old else START + timedelta(seconds=60))


@given(observations)
def test_types_are_unique_and_keep_their_order(steps: list[Observation]) -> None:
    types = [condition.type for condition in after([], steps, 0)]
    assert types == list(dict.fromkeys(step[0] for step in steps))


@given(observations)
def test_what_is_not_set_stays_as_observed(steps: list[Observation]) -> None:
    observed = after([], steps, 0)
    assert after(observed, [], 5, generation=9) == observed


def test_status_words_and_queries() -> None:
    conditions = ConditionSet([], 3, START)
    conditions.set(ConditionType.READY, True, Reason.RELEASED, "done")
    conditions.set(ConditionType.TRAINED, False, Reason.TRAINING_FAILED, "exit code 1")
    conditions.set(ConditionType.STALLED, None, Reason.WAITING, "")
    assert [str(c.status) for c in conditions.list()] == ["True", "False", "Unknown"]
    assert conditions.is_true(ConditionType.READY)
    assert conditions.is_false(ConditionType.TRAINED)
    assert not conditions.is_true(ConditionType.STALLED)
    assert not conditions.is_false(ConditionType.STALLED)
    assert not is_true(conditions.list(), ConditionType.ADOPTED)
    assert not is_false(conditions.list(), ConditionType.ADOPTED)
    assert {c.observed_generation for c in conditions.list()} == {3}


def test_drop_removes_and_tolerates_absence() -> None:
    conditions = ConditionSet([], 1, START)
    conditions.set(ConditionType.STALLED, True, Reason.INVALID, "x")
    conditions.drop(ConditionType.STALLED)
    conditions.drop(ConditionType.STALLED)
    assert conditions.list() == []
    assert conditions.get(ConditionType.STALLED) is None


def test_long_messages_are_cut_to_what_the_api_takes() -> None:
    conditions = ConditionSet([], 1, START)
    conditions.set(ConditionType.READY, False, Reason.INVALID, "é" * 5000)
    assert len(conditions.list()[0].message) == 1024


def test_times_have_whole_seconds_as_the_api_keeps_them() -> None:
    (condition,) = after([], [(ConditionType.READY, True, Reason.RELEASED, "")], 0)
    assert condition.wire()["lastTransitionTime"] == "2026-11-24T12:00:00Z"


@pytest.mark.parametrize(
    ("status", "reason", "pending"),
    [
        (False, Reason.TRAINING, True),
        (False, Reason.VALIDATING, True),
        (False, Reason.TRAINING_FAILED, False),
        (True, Reason.TRAINING, False),
        (None, Reason.TRAINING, False),
    ],
)
def test_only_false_with_a_reason_that_says_not_yet_is_pending(
    status: bool | None, reason: Reason, pending: bool
) -> None:
    (condition,) = after([], [(ConditionType.TRAINED, status, reason, "")], 0)
    assert condition.is_pending is pending
