"""The client and the status writes, against a real API server."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest

from concordat.api import ConditionSet, ConditionType, Reason, ReleaseChannel, Update
from concordat.api.release import ReleaseChannelStatus
from concordat.api.types import NameRef
from concordat.api.update import UpdateStatus, Verdict
from concordat.controller import (
    CONFIGMAP,
    GVK,
    JOB,
    NAMESPACE,
    SECRET,
    AlreadyExists,
    Cluster,
    Conflict,
    Forbidden,
    Invalid,
    NotFound,
    Unavailable,
    write_status,
)
from concordat.controller.kinds import EVENT
from concordat_devcluster.control_plane import ControlPlane
from tests.support.namespaces import new_namespace

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
DIGEST = "sha256:" + "a" * 64


@pytest.fixture
async def cluster(crds: ControlPlane) -> AsyncIterator[Cluster]:
    async with Cluster(crds.kubeconfig) as opened:
        yield opened


@pytest.fixture
async def namespace(cluster: Cluster) -> str:
    return await new_namespace(cluster, "client")


def configmap(namespace: str, name: str = "x", **data: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"namespace": namespace, "name": name}, "data": data}


def update(namespace: str) -> dict[str, Any]:
    artifact = {"repository": "digits/rounds", "digest": DIGEST}
    return {
        "apiVersion": "concordat.dev/v1alpha1",
        "kind": "Update",
        "metadata": {"namespace": namespace, "name": "r-1"},
        "spec": {
            "federation": "digits",
            "roundRef": {"name": "r", "namespace": "concordat", "uid": "1"},
            "site": namespace,
            "contract": artifact,
            "contractDigest": DIGEST,
            "consentDeadline": "2026-11-24T13:00:00Z",
            "submissionDeadline": "2026-11-24T14:00:00Z",
        },
    }


def channel(namespace: str) -> dict[str, Any]:
    return {
        "apiVersion": "concordat.dev/v1alpha1",
        "kind": "ReleaseChannel",
        "metadata": {"namespace": namespace, "name": "stable"},
        "spec": {"federation": "digits", "follow": "Approved"},
    }


async def test_create_get_list_delete(cluster: Cluster, namespace: str) -> None:
    made = await cluster.create(configmap(namespace, "a", k="v"))
    labelled = configmap(namespace, "b")
    labelled["metadata"]["labels"] = {"l": "1"}
    await cluster.create(labelled)
    assert (await cluster.get(CONFIGMAP, namespace, "a"))["data"] == {"k": "v"}
    assert {o["metadata"]["name"] for o in await cluster.list(CONFIGMAP, namespace)} >= {"a", "b"}
    (found,) = await cluster.list(CONFIGMAP, namespace, {"l": "1"})
    assert (found["kind"], found["apiVersion"], found["metadata"]["name"]) == ("ConfigMap", "v1", "b")
    assert await cluster.delete(CONFIGMAP, namespace, "a", made["metadata"]["uid"]) is True
    assert await cluster.delete(CONFIGMAP, namespace, "a") is False


async def test_a_long_list_is_complete(cluster: Cluster, namespace: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("concordat.controller.client.PAGE", 3)
    for number in range(8):
        await cluster.create(configmap(namespace, f"n{number}"))
    items, version = await cluster.list_at(CONFIGMAP, namespace)
    assert len({o["metadata"]["name"] for o in items} & {f"n{n}" for n in range(8)}) == 8
    assert version >= max(int(o["metadata"]["resourceVersion"]) for o in items)


async def test_delete_with_a_wrong_uid_is_refused(cluster: Cluster, namespace: str) -> None:
    await cluster.create(configmap(namespace))
    with pytest.raises(Conflict):
        await cluster.delete(CONFIGMAP, namespace, "x", uid=str(uuid.uuid4()))
    assert await cluster.get(CONFIGMAP, namespace, "x")


async def test_errors_have_types_and_name_the_request(cluster: Cluster, namespace: str, crds: ControlPlane) -> None:
    await cluster.create(configmap(namespace))
    with pytest.raises(AlreadyExists, match=f"POST /api/v1/namespaces/{namespace}/configmaps: 409"):
        await cluster.create(configmap(namespace))
    with pytest.raises(NotFound, match="configmaps/absent"):
        await cluster.get(CONFIGMAP, namespace, "absent")
    with pytest.raises(Invalid, match="federation"):
        await cluster.create({**channel(namespace), "spec": {"follow": "Approved"}})
    stranger = crds.kubeconfig_for("stranger")
    async with Cluster(stranger) as denied:
        with pytest.raises(Forbidden, match="secrets"):
            await denied.list(SECRET, namespace)


async def test_an_unreachable_server_is_transient(tmp_path: Any, crds: ControlPlane) -> None:
    text = crds.kubeconfig.read_text().replace(crds.server, "https://127.0.0.1:1")
    (tmp_path / "kubeconfig").write_text(text)
    async with Cluster(tmp_path / "kubeconfig") as nowhere:
        with pytest.raises(Unavailable, match="cannot be reached"):
            await nowhere.list(NAMESPACE)


async def test_finalizers_need_the_version_that_was_read(cluster: Cluster, namespace: str) -> None:
    old = await cluster.create(channel(namespace))
    version = old["metadata"]["resourceVersion"]
    new = await cluster.set_finalizers(ReleaseChannel, namespace, "stable", ["concordat.dev/x"], version)
    assert new["metadata"]["finalizers"] == ["concordat.dev/x"]
    with pytest.raises(Conflict):
        await cluster.set_finalizers(ReleaseChannel, namespace, "stable", [], version)
    await cluster.set_finalizers(ReleaseChannel, namespace, "stable", [], new["metadata"]["resourceVersion"])


async def test_replace_needs_the_version_that_was_read(cluster: Cluster, namespace: str) -> None:
    old = await cluster.create(configmap(namespace))
    await cluster.replace({**old, "data": {"k": "1"}})
    with pytest.raises(Conflict):
        await cluster.replace({**old, "data": {"k": "2"}})


async def test_apply_owns_what_it_names(cluster: Cluster, namespace: str) -> None:
    await cluster.apply(configmap(namespace, a="1"), "one")
    await cluster.apply(configmap(namespace, b="2"), "two")
    assert (await cluster.get(CONFIGMAP, namespace, "x"))["data"] == {"a": "1", "b": "2"}
    await cluster.apply(configmap(namespace), "one")
    assert (await cluster.get(CONFIGMAP, namespace, "x"))["data"] == {"b": "2"}


async def test_a_job_has_its_pods(cluster: Cluster, namespace: str) -> None:
    pod = {"containers": [{"name": "c", "image": "none"}], "restartPolicy": "Never"}
    labels = {"batch.kubernetes.io/job-name": "train"}
    for name in ("second", "first"):
        metadata = {"namespace": namespace, "name": name, "labels": labels}
        await cluster.create({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": pod})
    assert [p["metadata"]["name"] for p in await cluster.list_pods(namespace, "train")] == ["first", "second"]
    assert await cluster.list_pods(namespace, "other") == []


def conditions(obj: Update | ReleaseChannel, *values: tuple[ConditionType, bool | None, Reason]) -> Any:
    made = ConditionSet(obj.status.conditions, obj.metadata.generation, NOON)
    for type_, status, reason in values:
        made.set(ConditionType(type_), status, reason, f"{type_} is {reason}")
    return made.list()


async def read(cluster: Cluster, namespace: str) -> Update:
    return Update.model_validate(await cluster.get(Update, namespace, "r-1"))


async def test_two_writers_keep_their_conditions_and_fields(cluster: Cluster, namespace: str) -> None:
    await cluster.create(update(namespace))
    seen = await read(cluster, namespace)
    agent = UpdateStatus(conditions=conditions(seen, (ConditionType.CONSENTED, True, Reason.CONSENTED)))
    assert await write_status(cluster, seen, agent, "concordat-agent", {ConditionType.CONSENTED})

    seen = await read(cluster, namespace)
    judged = conditions(seen, (ConditionType.VERIFIED, False, Reason.NORM_EXCEEDED))
    operator = UpdateStatus(observed_generation=1, conditions=judged, verdict=Verdict(reason="NormExceeded"))
    assert await write_status(cluster, seen, operator, "concordat-operator-status", {ConditionType.VERIFIED})

    seen = await read(cluster, namespace)
    assert {c.type for c in seen.status.conditions} == {"Consented", "Verified"}
    withdrawn = UpdateStatus(conditions=conditions(seen, (ConditionType.CONSENTED, False, Reason.POLICY_REFUSED)))
    assert await write_status(cluster, seen, withdrawn, "concordat-agent", {ConditionType.CONSENTED})
    seen = await read(cluster, namespace)
    assert {c.type: c.status.value for c in seen.status.conditions} == {"Consented": "False", "Verified": "False"}
    assert seen.status.verdict == Verdict(reason="NormExceeded")


async def test_an_equal_status_is_not_written_again(cluster: Cluster, namespace: str) -> None:
    await cluster.create(update(namespace))
    seen = await read(cluster, namespace)

    def wanted(obj: Update) -> UpdateStatus:
        return UpdateStatus(
            observed_generation=1, conditions=conditions(obj, (ConditionType.TRAINED, None, Reason.TRAINING))
        )

    assert await write_status(cluster, seen, wanted(seen), "concordat-operator-status", {ConditionType.TRAINED})
    seen = await read(cluster, namespace)
    version = seen.metadata.resource_version
    assert not await write_status(cluster, seen, wanted(seen), "concordat-operator-status", {ConditionType.TRAINED})
    assert (await read(cluster, namespace)).metadata.resource_version == version


async def test_a_field_set_to_none_is_removed_once(cluster: Cluster, namespace: str) -> None:
    await cluster.create(channel(namespace))

    async def now() -> ReleaseChannel:
        return ReleaseChannel.model_validate(await cluster.get(ReleaseChannel, namespace, "stable"))

    seen = await now()
    made = conditions(
        seen, (ConditionType.READY, True, Reason.ROLLED_OUT), (ConditionType.STALLED, True, Reason.NO_RELEASE)
    )
    await write_status(cluster, seen, ReleaseChannelStatus(conditions=made, release=NameRef(name="r-1")), "m")
    seen = await now()
    assert seen.status.release == NameRef(name="r-1")
    nothing = ReleaseChannelStatus(conditions=conditions(seen)[:1], release=None)
    assert await write_status(cluster, seen, nothing, "m")
    seen = await now()
    assert seen.status.release is None
    assert [c.type for c in seen.status.conditions] == ["Ready"]
    assert not await write_status(cluster, seen, nothing, "m")


async def test_clearing_a_field_of_another_writer_is_a_bug(cluster: Cluster, namespace: str) -> None:
    await cluster.create(update(namespace))
    seen = await read(cluster, namespace)
    await write_status(cluster, seen, UpdateStatus(verdict=Verdict(reason="Verified")), "concordat-operator-status")
    seen = await read(cluster, namespace)
    greedy = UpdateStatus(conditions=[], verdict=None)
    with pytest.raises(ValueError, match=r"Update\.status\.verdict is owned by another field manager"):
        await write_status(cluster, seen, greedy, "concordat-agent", {ConditionType.CONSENTED})


async def test_leaving_out_an_own_field_is_a_bug(cluster: Cluster, namespace: str) -> None:
    await cluster.create(update(namespace))
    seen = await read(cluster, namespace)
    await write_status(cluster, seen, UpdateStatus(verdict=Verdict(reason="Verified")), "concordat-operator-status")
    seen = await read(cluster, namespace)
    with pytest.raises(ValueError, match=r"Update\.status\.verdict was owned by concordat-operator-status and is lost"):
        await write_status(cluster, seen, UpdateStatus(observed_generation=1), "concordat-operator-status")


async def test_the_status_of_an_absent_object_is_not_found(cluster: Cluster, namespace: str) -> None:
    await cluster.create(update(namespace))
    seen = await read(cluster, namespace)
    await cluster.delete(Update, namespace, "r-1")
    with pytest.raises(NotFound):
        await write_status(cluster, seen, UpdateStatus(observed_generation=1), "concordat-operator-status")


async def test_a_status_is_never_written_onto_a_namesake(cluster: Cluster, namespace: str) -> None:
    """Finding 27."""
    await cluster.create(update(namespace))
    seen = await read(cluster, namespace)
    await cluster.delete(Update, namespace, "r-1")
    await cluster.create(update(namespace))
    with pytest.raises(Conflict):
        await write_status(cluster, seen, UpdateStatus(observed_generation=1), "concordat-operator-status")
    assert (await read(cluster, namespace)).status == UpdateStatus(observed_generation=0)


async def test_a_status_can_demand_that_nothing_was_changed_since(cluster: Cluster, namespace: str) -> None:
    """Findings 6 and 27: an edit between the look and an irreversible write means to look again."""
    await cluster.create(update(namespace))
    seen = await read(cluster, namespace)
    await cluster.apply_status(Update, namespace, "r-1", {"observedGeneration": 1}, "someone-else")
    status = UpdateStatus(verdict=Verdict(reason="Verified"))
    with pytest.raises(Conflict):
        await write_status(cluster, seen, status, "concordat-operator-verdict", unchanged=True)
    seen = await read(cluster, namespace)
    assert await write_status(cluster, seen, status, "concordat-operator-verdict", unchanged=True)
    assert (await read(cluster, namespace)).status.observed_generation == 1


async def test_a_transition_is_one_event_about_the_object(
    cluster: Cluster, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    await cluster.create(update(namespace))
    seen = await read(cluster, namespace)
    status = UpdateStatus(conditions=conditions(seen, (ConditionType.VERIFIED, False, Reason.NORM_EXCEEDED)))
    for _ in range(2):  # The second pass saw the old status, as after a crash between the write and the store.
        await write_status(cluster, seen, status, "concordat-operator-status", {ConditionType.VERIFIED})
    (event,) = await cluster.list(EVENT, namespace)
    assert (event["type"], event["reason"], event["note"]) == ("Warning", "NormExceeded", "Verified is NormExceeded")
    assert event["reportingController"] == "concordat-operator"
    assert event["regarding"]["uid"] == seen.metadata.uid
    assert event["regarding"]["kind"] == "Update"
    assert [r.levelname for r in caplog.records if r.getMessage() == "Verified is NormExceeded"][:1] == ["WARNING"]


async def test_writes_are_told_and_reads_are_not(cluster: Cluster, namespace: str) -> None:
    told: list[str] = []
    cluster.on_write = lambda obj: told.append(obj["kind"])
    await cluster.create(configmap(namespace))
    await cluster.get(CONFIGMAP, namespace, "x")
    await cluster.apply(configmap(namespace, k="v"), "m")
    assert told == ["ConfigMap", "ConfigMap"]


async def test_a_closed_cluster_says_how_to_open_it() -> None:
    with pytest.raises(RuntimeError, match="async with Cluster"):
        await Cluster().get(JOB, "a", "b")


def test_kinds_compare_by_value() -> None:
    assert GVK("batch/v1", "Job") == JOB
