"""The cache: the newest version wins, deletions are remembered, lists sweep."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from concordat.api import ReleaseChannel
from concordat.api.types import LABEL_RELEASE, LABEL_ROUND_UID
from concordat.controller.cache import Cache
from concordat.controller.kinds import JOB
from tests.support.presence import present


def job(name: str, version: int, uid: str = "u", namespace: str = "site-a", **more: Any) -> dict[str, Any]:
    metadata = {"namespace": namespace, "name": name, "uid": uid, "resourceVersion": str(version)}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata | more.pop("metadata", {}), **more}


def cache() -> tuple[Cache, list[tuple[Any, Any]]]:
    made, told = Cache(), []
    made.watch([JOB])
    made.subscribe(lambda _, old, new: told.append((old, new)))
    return made, told


HISTORY = [
    ("MODIFIED", job("x", 1, "first", spec={"n": 1})),
    ("MODIFIED", job("x", 3, "first", spec={"n": 2})),
    ("DELETED", job("x", 5, "first", spec={"n": 2})),
    ("MODIFIED", job("x", 7, "second", spec={"n": 3})),
    ("MODIFIED", job("x", 9, "second", spec={"n": 4})),
    ("DELETED", job("x", 11, "second", spec={"n": 4})),
    ("MODIFIED", job("x", 13, "third", spec={"n": 5})),
]


@given(st.integers(1, len(HISTORY)), st.data())
def test_any_order_and_any_repetition_lead_to_the_newest_state(length: int, data: st.DataObject) -> None:
    history = HISTORY[:length]
    repeated = history + data.draw(st.lists(st.sampled_from(history), max_size=5))
    held, _ = cache()
    for type_, obj in data.draw(st.permutations(repeated)):
        held.remove(obj) if type_ == "DELETED" else held.feed(obj)
    last_type, last = history[-1]
    assert held.get(JOB, "site-a", "x") == (None if last_type == "DELETED" else last)


def test_a_change_without_meaning_is_stored_but_not_told() -> None:
    held, told = cache()
    held.feed(job("x", 1, metadata={"annotations": {"a": "1"}, "managedFields": [{}]}))
    held.feed(job("x", 2, metadata={"annotations": {"a": "2"}}))
    assert len(told) == 1
    assert present(held.get(JOB, "site-a", "x"))["metadata"]["annotations"] == {"a": "2"}
    assert "managedFields" not in held.list(JOB)[0]["metadata"]


@pytest.mark.parametrize(
    "change",
    [
        {"spec": {"suspend": True}},
        {"status": {"failed": 1}},
        {"metadata": {"labels": {"a": "b"}}},
        {"metadata": {"deletionTimestamp": "2026-11-24T12:00:00Z"}},
        {"metadata": {"generation": 2}},
        {"metadata": {"finalizers": ["concordat.dev/round-cleanup"]}},
        {"metadata": {"uid": "another"}},
    ],
)
def test_a_change_with_meaning_is_told_with_old_and_new(change: dict[str, Any]) -> None:
    held, told = cache()
    held.feed(job("x", 1))
    held.feed(job("x", 2, **change))
    assert told[1][0]["metadata"]["resourceVersion"] == "1"
    assert told[1][1]["metadata"]["resourceVersion"] == "2"


async def test_a_list_drops_what_is_gone_and_keeps_what_is_newer_than_itself() -> None:
    held, told = cache()
    held.feed(job("gone", 3))
    held.feed(job("stays", 4))
    held.feed(job("newer", 12))
    dropped = await held.sync(JOB, [job("stays", 4), job("fresh", 8)], 10)
    assert dropped == 1
    assert [obj["metadata"]["name"] for obj in held.list(JOB)] == ["fresh", "newer", "stays"]
    assert [old["metadata"]["name"] for old, new in told if new is None] == ["gone"]


async def test_a_list_does_not_bring_back_what_was_deleted_after_it_was_made() -> None:
    held, _ = cache()
    held.feed(job("x", 5))
    held.remove(job("x", 12))
    await held.sync(JOB, [job("x", 5)], 10)
    assert held.get(JOB, "site-a", "x") is None


async def test_a_list_of_one_namespace_sweeps_only_that() -> None:
    held, _ = cache()
    held.feed(job("x", 1, namespace="site-a"))
    held.feed(job("x", 2, namespace="site-b"))
    assert await held.sync(JOB, [], 10, ["site-a"]) == 1
    assert [obj["metadata"]["namespace"] for obj in held.list(JOB)] == ["site-b"]


async def test_deletions_are_forgotten_once_a_list_is_newer() -> None:
    held, _ = cache()
    for number in range(100):
        held.remove(job(f"x{number}", number + 1))
    await held.sync(JOB, [], 1000)
    assert held._tables["batch/v1", "Job"].deleted == {}


def test_labels_and_namespace_select() -> None:
    held, _ = cache()
    held.feed(job("a", 1, metadata={"labels": {"round": "r", "site": "s"}}))
    held.feed(job("b", 2, metadata={"labels": {"round": "r"}}, namespace="site-b"))
    held.feed(job("c", 3))
    assert [o["metadata"]["name"] for o in held.list(JOB, labels={"round": "r"})] == ["a", "b"]
    assert [o["metadata"]["name"] for o in held.list(JOB, "site-a", {"round": "r"})] == ["a"]


NAMES = st.sampled_from(["a", "b", "c"])
LABELS = st.dictionaries(st.sampled_from([LABEL_ROUND_UID, LABEL_RELEASE, "other"]), st.sampled_from(["x", "y"]))
STEPS = st.lists(st.tuples(st.booleans(), NAMES, NAMES, LABELS), max_size=30)


@given(STEPS, st.none() | NAMES, LABELS)
def test_an_indexed_list_equals_a_scan(
    steps: list[tuple[bool, str, str, dict[str, str]]], namespace: str | None, labels: dict[str, str]
) -> None:
    """Issue 10, section C6: rounds, releases and namespaces are looked up, not searched."""
    held, _ = cache()
    for version, (deleted, name, space, worn) in enumerate(steps, 1):
        obj = job(name, version, namespace=space, metadata={"labels": worn})
        held.remove(obj) if deleted else held.feed(obj)
    scan = [
        obj
        for obj in held.list(JOB)
        if namespace in (None, obj["metadata"]["namespace"]) and labels.items() <= obj["metadata"]["labels"].items()
    ]
    assert held.list(JOB, namespace, labels) == scan
    for obj in held.list(JOB):
        held.remove(obj)
    assert held._tables["batch/v1", "Job"].index == {}


def test_what_nobody_reads_is_not_kept_and_its_change_is_not_told() -> None:
    held, told = Cache({JOB: lambda raw: {k: v for k, v in raw.items() if k != "spec"}}), []
    held.watch([JOB])
    held.subscribe(lambda _, old, new: told.append(new))
    held.feed(job("x", 1, spec={"n": 1}))
    held.feed(job("x", 2, spec={"n": 2}))
    assert [present(obj).get("spec") for obj in told] == [None]


async def test_a_long_list_lets_others_have_their_turn() -> None:
    """Finding 30: nothing keeps the event loop for more than an instant."""
    held, _ = cache()
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    await asyncio.sleep(0)
    await held.sync(JOB, [job(f"x{number}", number + 1, spec={"n": "x" * 1000}) for number in range(3000)], 5000)
    task.cancel()
    assert turns > 2


def channel(version: int, spec: dict[str, Any]) -> dict[str, Any]:
    metadata = {"namespace": "concordat", "name": "stable", "uid": "u", "resourceVersion": str(version)}
    return {"apiVersion": "concordat.dev/v1alpha1", "kind": "ReleaseChannel", "metadata": metadata, "spec": spec}


def test_our_kinds_are_typed_and_an_unreadable_object_counts_as_absent(caplog: pytest.LogCaptureFixture) -> None:
    held = Cache()
    held.watch([ReleaseChannel])
    held.feed(channel(1, {"federation": "digits", "follow": "Approved"}))
    read = held.get(ReleaseChannel, "concordat", "stable")
    assert read is not None
    assert read.spec.federation == "digits"
    held.feed(channel(2, {"federation": 7}))
    assert held.get(ReleaseChannel, "concordat", "stable") is None
    assert "does not fit this version's schema" in caplog.text
    held.feed(channel(3, {"federation": "digits", "follow": "Approved"}))
    assert held.get(ReleaseChannel, "concordat", "stable") is not None


async def test_an_older_version_does_not_stand_for_one_that_cannot_be_read() -> None:
    """Finding 40."""
    held, good = Cache(), {"federation": "digits", "follow": "Approved"}
    held.watch([ReleaseChannel])
    held.feed(channel(1, good))
    held.feed(channel(3, {"federation": 7}))
    assert not held.feed(channel(2, good))
    await held.sync(ReleaseChannel, [channel(3, {"federation": 7})], 9)
    assert not held.feed(channel(2, good))
    assert held.get(ReleaseChannel, "concordat", "stable") is None
    await held.sync(ReleaseChannel, [], 12)
    assert held._tables["concordat.dev/v1alpha1", "ReleaseChannel"].unreadable == {}


def test_reading_an_unwatched_kind_says_what_to_do() -> None:
    held, _ = cache()
    with pytest.raises(LookupError, match=r"ReleaseChannel is not watched: .* add it to the `watches`"):
        held.get(ReleaseChannel, "concordat", "stable")


def test_unwatched_kinds_are_ignored() -> None:
    held, told = cache()
    assert not held.feed(channel(1, {}))
    assert not held.remove(channel(1, {}))
    assert told == []
