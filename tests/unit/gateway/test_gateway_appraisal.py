"""What the API server reports of the pods, and what the gateway makes of it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from concordat.statements.grant import Purpose
from concordat_gateway.appraisal import agent_pod, trainer_image
from concordat_gateway.refusals import Denied, NotYet, Refused
from tests.support.contracts import contract
from tests.support.grants import grant
from tests.support.hub import NOW

D1, D2 = ("sha256:" + digit * 64 for digit in "12")
IMAGE = f"registry/learning@{D1}"
POD: dict[str, Any] = {
    "metadata": {"name": "concordat-agent-x", "uid": "uid-1"},
    "spec": {
        "serviceAccountName": "concordat-agent",
        "containers": [{"name": "agent", "image": "registry/operator:1.0"}],
        "volumes": [{"name": "state", "persistentVolumeClaim": {}}],
    },
    "status": {"containerStatuses": [{"name": "agent", "imageID": f"registry/operator@{D2}"}]},
}
JOB: dict[str, Any] = {
    "metadata": {"name": "r1-0123abcd", "uid": "job-1"},
    "status": {
        "startTime": "2026-11-24T12:01:00Z",
        "completionTime": "2026-11-24T12:02:00Z",
        "conditions": [{"type": "Complete", "status": "True"}],
    },
}
TRAINER: dict[str, Any] = {
    "metadata": {"name": "r1-x", "uid": "p", "labels": {"batch.kubernetes.io/controller-uid": "job-1"}},
    "spec": {"containers": [{"name": "trainer", "image": IMAGE}]},
    "status": {"phase": "Succeeded", "containerStatuses": [{"name": "trainer", "imageID": IMAGE}]},
}
TRAINING = grant("site-a", contract(), D1, D1, NOW, purpose=Purpose.TRAIN, not_after=NOW + timedelta(minutes=30))
Change = Callable[[dict[str, Any]], Any]


def changed(obj: dict[str, Any], change: Change) -> dict[str, Any]:
    """A copy of an object with a change."""
    made = copy.deepcopy(obj)
    change(made)
    return made


def test_a_plain_pod_is_written_down() -> None:
    assert agent_pod(POD, "uid-1", None) == {"pod": "concordat-agent-x", "uid": "uid-1", "images": [D2]}
    assert agent_pod(POD, "uid-1", [D1, D2])["images"] == [D2]


REFUSED: dict[str, tuple[Change, str]] = {
    "another pod of that name": (lambda pod: pod["metadata"].update(uid="uid-2"), "another one than the token"),
    "another account": (lambda pod: pod["spec"].update(serviceAccountName="default"), "ServiceAccount default"),
    "an ephemeral container": (
        lambda pod: pod["spec"].update(ephemeralContainers=[{"name": "debugger"}]),
        "somebody debugs it",
    ),
    "one that has ended": (
        lambda pod: pod["status"].update(ephemeralContainerStatuses=[{"name": "debugger"}]),
        "somebody debugs it",
    ),
    "the node's network": (lambda pod: pod["spec"].update(hostNetwork=True), "has hostNetwork"),
    "the node's processes": (lambda pod: pod["spec"].update(hostPID=True), "has hostPID"),
    "a folder of the node": (
        lambda pod: pod["spec"]["volumes"].append({"name": "root", "hostPath": {"path": "/"}}),
        "as volume root",
    ),
    "a privileged container": (
        lambda pod: pod["spec"]["containers"][0].update(securityContext={"privileged": True}),
        "privileged container, agent",
    ),
    "an image without a digest": (
        lambda pod: pod["status"]["containerStatuses"][0].update(imageID="registry/operator:1.0"),
        "names no digest",
    ),
    "too many containers": (
        lambda pod: pod["spec"].update(initContainers=[{"name": f"c{i}"} for i in range(16)]),
        "17 containers",
    ),
    "an image that is not allowed": (
        lambda pod: pod["status"]["containerStatuses"][0].update(imageID=D1),
        "not among agentImages",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.attack("an agent's pod with a debugger, of the host, with another image", "gateway, appraisal", "REFUSED")
def test_a_pod_that_somebody_can_reach_into_is_refused(name: str) -> None:
    change, says = REFUSED[name]
    with pytest.raises(Denied, match=says):
        agent_pod(changed(POD, change), "uid-1", [D2])


@pytest.mark.parametrize(
    "change",
    [
        lambda pod: pod.pop("status"),
        lambda pod: pod["status"].pop("containerStatuses"),
        lambda pod: pod["status"]["containerStatuses"][0].update(imageID=""),
        lambda pod: pod["spec"]["containers"].append({"name": "sidecar"}),
        lambda pod: pod["spec"].update(initContainers=[{"name": "first"}]),
    ],
)
def test_what_the_kubelet_does_not_report_yet_is_waited_for(change: Change) -> None:
    with pytest.raises(NotYet, match="does not report yet"):
        agent_pod(changed(POD, change), "uid-1", None)


def trained(job: dict[str, Any] = JOB, *pods: dict[str, Any], uid: str = "job-1") -> dict[str, Any]:
    """What is found of a Job with these pods."""
    return trainer_image(job, pods or [TRAINER], uid, IMAGE, TRAINING)


def test_the_trainers_image_is_written_down() -> None:
    assert trained() == {"pod": "r1-x", "image": D1}
    failed = changed(TRAINER, lambda pod: pod["status"].update(phase="Failed", containerStatuses=[]))
    others = changed(TRAINER, lambda pod: pod["metadata"].update(labels={}))
    assert trained(JOB, failed, others, TRAINER) == {"pod": "r1-x", "image": D1}


@pytest.mark.parametrize(
    ("job", "pod", "raised", "says"),
    [
        (lambda job: job["metadata"].update(uid="job-2"), None, Denied, "another one than the update"),
        (lambda job: job["status"].update(conditions=[]), None, NotYet, "has not ended well"),
        (lambda job: job["status"]["conditions"][0].update(type="Failed"), None, NotYet, "has not ended well"),
        (lambda job: job["status"].pop("startTime"), None, Denied, "began at None"),
        (lambda job: job["status"].update(startTime="2026-11-24T11:54:59Z"), None, Denied, "began at"),
        (lambda job: job["status"].update(startTime="2026-11-24T12:35:01Z"), None, Denied, "began at"),
        (None, lambda pod: pod["status"].update(phase="Failed"), Denied, "no pod of Job .* is left"),
        (None, lambda pod: pod["metadata"].update(labels={}), Denied, "no pod of Job .* is left"),
        (None, lambda pod: pod["status"]["containerStatuses"][0].update(imageID=D2), Denied, f"ran {D2}, the contract"),
        (None, lambda pod: pod["spec"].update(ephemeralContainers=[{"name": "x"}]), Denied, "somebody debugs it"),
    ],
)
@pytest.mark.attack("a trainer that ran another image, or outside its grant", "gateway, appraisal", "REFUSED")
def test_what_trained_otherwise_is_refused(
    job: Change | None, pod: Change | None, raised: type[Refused], says: str
) -> None:
    with pytest.raises(raised, match=says):
        trained(changed(JOB, job or (lambda _: None)), changed(TRAINER, pod or (lambda _: None)))
