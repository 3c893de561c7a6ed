"""The small parts: write limiter, clock, kinds, log lines, transitions, leader times."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from concordat.api import Condition, ConditionStatus, FederationRound, Reason, Release, ReleaseChannel
from concordat.api.types import LABEL_SITE
from concordat.controller.client import Cluster
from concordat.controller.clock import FixedClock, SystemClock
from concordat.controller.events import announce, event_name, transition_events
from concordat.controller.kinds import GVK, JOB, NAMESPACE, gvk, gvk_of
from concordat.controller.leader import LeaderConfig
from concordat.controller.limiter import TokenBucket
from concordat.controller.logs import KeyValueFormatter, fields
from tests.fakes.api_server import FakeApiServer, FakeCluster
from tests.support.hub import Make

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)


@given(st.lists(st.floats(0, 2), min_size=1, max_size=300))
def test_never_more_writes_than_rate_and_burst_allow(gaps: list[float]) -> None:
    bucket, now, used = TokenBucket(20, 50), 0.0, []
    for gap in gaps:
        now += gap
        used.append(now + bucket.reserve(now))
    assert used == sorted(used)
    for start in range(0, len(used), 10):
        for end in range(start, len(used), 10):
            assert end - start + 1 <= 50 + 20 * (used[end] - used[start]) + 1e-6


def test_a_burst_passes_at_once_then_one_per_interval() -> None:
    bucket = TokenBucket(20, 50)
    assert {bucket.reserve(0.0) for _ in range(50)} == {0.0}
    assert bucket.reserve(0.0) == pytest.approx(0.05)
    assert bucket.reserve(0.0) == pytest.approx(0.10)


def test_an_event_takes_a_token_only_if_there_is_one() -> None:
    bucket = TokenBucket(1, 2)
    assert [bucket.take(0.0) for _ in range(4)] == [True, True, False, False]
    assert [bucket.take(1.0) for _ in range(2)] == [True, False]


def test_a_limiter_needs_a_rate() -> None:
    with pytest.raises(ValueError, match="rate 0 and burst 1 must be positive"):
        TokenBucket(0, 1)


def test_clocks() -> None:
    clock = FixedClock(NOON)
    clock.advance(90)
    assert clock.now() == NOON + timedelta(seconds=90)
    assert SystemClock().now().tzinfo is UTC
    with pytest.raises(ValueError, match="zone"):
        FixedClock(datetime(2026, 11, 24))  # noqa: DTZ001 - the refusal is what is tested


@pytest.mark.parametrize(
    ("kind", "namespace", "name", "path"),
    [
        (JOB, "site-a", "x", "/apis/batch/v1/namespaces/site-a/jobs/x"),
        (JOB, None, None, "/apis/batch/v1/jobs"),
        (NAMESPACE, "", "site-a", "/api/v1/namespaces/site-a"),
        (
            gvk(FederationRound),
            "concordat",
            "r",
            "/apis/concordat.dev/v1alpha1/namespaces/concordat/federationrounds/r",
        ),
        (gvk_of({"apiVersion": "v1", "kind": "Namespace"}), None, None, "/api/v1/namespaces"),
        (gvk_of({"apiVersion": "v1", "kind": "Service"}), "a", "b", "/api/v1/namespaces/a/services/b"),
    ],
)
def test_paths(kind: GVK, namespace: str | None, name: str | None, path: str) -> None:
    assert kind.path(namespace, name) == path


def test_an_object_needs_a_namespace_and_a_kind() -> None:
    with pytest.raises(ValueError, match="Job x is namespaced"):
        JOB.path("", "x")
    with pytest.raises(ValueError, match="no 'kind'"):
        gvk_of({"apiVersion": "v1"})


def test_log_lines_are_key_value() -> None:
    record = logging.LogRecord("concordat.x", logging.INFO, "", 0, "round %s", ("ended",), None)
    record.created, record.msecs = NOON.timestamp(), 7
    record.__dict__.update(fields(name="r-1", message='said "no"', empty="", absent=None, line="a\nb"))
    assert KeyValueFormatter().format(record) == (
        'time=2026-11-24T12:00:00.007Z level=info logger=concordat.x msg="round ended" '
        'name=r-1 message="said \\"no\\"" empty="" line="a\\nb"'
    )


def condition(type_: str, status: str, reason: Reason, message: str = "") -> Condition:
    return Condition(
        type=type_,
        status=ConditionStatus(status),
        last_transition_time=NOON,
        reason=reason.value,
        message=message,
    )


def told(old: list[Condition], new: list[Condition]) -> list[tuple[str, str, bool]]:
    return [(t.condition, t.reason, t.warning) for t in transition_events(old, new)]


def test_transitions() -> None:
    waiting = condition("UpdatesCollected", "Unknown", Reason.WAITING)
    collected = condition("UpdatesCollected", "True", Reason.COLLECTED)
    assert told([], [waiting]) == []
    assert told([waiting], [collected]) == [("UpdatesCollected", "Collected", False)]
    assert told([collected], [collected]) == []
    assert told([collected], []) == []


def test_false_warns_unless_it_says_not_yet() -> None:
    assert told([], [condition("Trained", "False", Reason.OOM_KILLED)]) == [("Trained", "OOMKilled", True)]
    assert told([], [condition("Trained", "False", Reason.TRAINING)]) == []


def test_stalled_warns_and_reconciling_is_silent() -> None:
    new = [
        condition("Stalled", "True", Reason.NO_EVALUATOR),
        condition("Reconciling", "True", Reason.IN_PROGRESS),
    ]
    assert told([], new) == [("Stalled", "NoEvaluator", True)]


def test_one_reason_is_one_event() -> None:
    new = [condition(t, "True", Reason.RELEASED) for t in ("Released", "Succeeded", "Ready")]
    assert told([], new) == [("Released", "Released", False)]


def test_a_new_reason_is_a_transition_a_new_message_is_not() -> None:
    old = condition("Adopted", "False", Reason.REGRESSION, "by 3 ppm")
    assert told([old], [condition("Adopted", "False", Reason.REGRESSION, "by 4 ppm")]) == []
    assert told([old], [condition("Adopted", "False", Reason.POLICY_REJECTED)]) == [("Adopted", "PolicyRejected", True)]


def test_what_stands_in_the_way_of_a_step_is_told_and_a_step_under_way_is_not() -> None:
    """Finding 21. Of finding 42 nothing is left: a copy shows no champion that an upgrade could make False."""
    assert told([], [condition("Staged", "False", Reason.DISK_FULL)]) == [("Staged", "DiskFull", True)]
    assert told([], [condition("Trained", "False", Reason.TRAINING)]) == []


def test_a_reason_that_comes_again_is_another_event() -> None:
    """Finding 42: A, B, A within one status, whose time of transition stays."""

    def name(version: str, reason: Reason) -> str:
        channel = ReleaseChannel.model_validate(
            {
                "metadata": {"name": "stable", "uid": "u", "resourceVersion": version},
                "spec": {"federation": "digits", "follow": "Approved"},
            }
        )
        (transition,) = transition_events([], [condition("Ready", "False", reason)])
        return event_name(channel, transition)

    first, second, third = name("1", Reason.NO_RELEASE), name("2", Reason.REJECTED), name("3", Reason.NO_RELEASE)
    assert len({first, second, third}) == 3
    assert name("3", Reason.NO_RELEASE) == third


async def test_of_one_of_many_objects_only_what_went_wrong_is_an_event(caplog: pytest.LogCaptureFixture) -> None:
    """Section B: a round of 1,000 sites posted 11,000 Events."""
    posted: list[str] = []

    class Events(FakeCluster):
        async def create_event(self, regarding: dict[str, Any], **event: Any) -> None:
            posted.append(f"{regarding['kind']} {event['reason']}")

    good = transition_events([], [condition("Trained", "True", Reason.TRAINED)])
    bad = transition_events([], [condition("Trained", "False", Reason.OOM_KILLED)])
    make, cluster = Make(), Events(FakeApiServer())
    copy = make.release("r1-1", 1, "site-a")
    copy.metadata.labels[LABEL_SITE] = "site-a"
    with caplog.at_level(logging.INFO):
        for obj in (make.update("site-a"), copy, make.round()):
            await announce(cluster, obj, [*good, *bad], "m")
    assert posted == ["Update OOMKilled", "Release OOMKilled", "FederationRound Trained", "FederationRound OOMKilled"]
    assert sum(getattr(record, "fields", {}).get("reason") == "Trained" for record in caplog.records) == 3


async def test_events_never_keep_objects_waiting() -> None:
    """Section C: Events have a bucket of their own, and nothing waits for it; Leases have none."""
    cluster = Cluster(qps=4, burst=1)
    cluster._events.take(0.0)
    assert cluster._writes.reserve(0.0) == 0


@pytest.mark.parametrize("duration", [5.0, 12.0])
def test_leader_times_must_increase(duration: float) -> None:
    with pytest.raises(ValueError, match="must increase"):
        LeaderConfig("concordat", "operator", "a", duration=duration, renew_deadline=10.0, retry=2.0)


def test_kinds_by_model() -> None:
    assert gvk(Release) == GVK("concordat.dev/v1alpha1", "Release", "releases")
