"""Only the expected Job is the expected Job: every single change of what it may do is found."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from concordat.jobs import same_job
from tests.support.jobs import Make
from tests.support.json_paths import paths

KINDS = ("train", "evaluate", "aggregate")
POD = ("spec", "template", "spec")
CONTAINER = (*POD, "containers", 0)


@pytest.mark.parametrize("kind", KINDS)
def test_what_the_api_server_returns_is_the_same_job(make: Make, kind: str) -> None:
    job = make.jobs()[kind]
    assert same_job(job, job) is None
    assert same_job(make.served(job), job) is None


def _at(value: Any, path: tuple[Any, ...]) -> Any:
    for step in path:
        value = value[step]
    return value


def _other(value: Any) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    return f"{value}x" if isinstance(value, str) else "x"


@pytest.mark.parametrize("kind", KINDS)
def test_no_expected_field_may_be_changed_or_left_out(make: Make, kind: str) -> None:
    job = make.jobs()[kind]
    free = {("apiVersion",), ("kind",), ("spec", "suspend")}
    for path in paths(job):
        if path in free or path in (("metadata",), ("spec",)):
            continue
        changed, without = make.served(job), make.served(job)
        _at(changed, path[:-1])[path[-1]] = _other(_at(changed, path))
        del _at(without, path[:-1])[path[-1]]
        assert same_job(changed, job) is not None, path
        assert same_job(without, job) is not None, path


_ADDED: dict[tuple[Any, ...], dict[str, Any]] = {
    (): {},
    ("spec",): {
        "manualSelector": True,
        "managedBy": "example.com/x",
        "ttlSecondsAfterFinished": 0,
        "successPolicy": {"rules": [{"succeededIndexes": "0"}]},
        "backoffLimitPerIndex": 1,
        "completionMode": "Indexed",
        "selector": {"matchLabels": {"app": "other"}},
    },
    ("spec", "template", "metadata"): {"annotations": {"k8s.v1.cni.cncf.io/networks": "other"}, "name": "x"},
    ("spec", "template", "metadata", "labels"): {
        "app.kubernetes.io/name": "concordat-agent",
        "controller-uid": "another",
        "job-name": "another",
    },
    POD: {
        "hostNetwork": True,
        "hostPID": True,
        "hostIPC": True,
        "hostUsers": True,
        "hostAliases": [{"ip": "1.2.3.4", "hostnames": ["x"]}],
        "shareProcessNamespace": True,
        "nodeName": "node-1",
        "nodeSelector": {"a": "b"},
        "tolerations": [{"operator": "Exists"}],
        "affinity": {},
        "priorityClassName": "system-node-critical",
        "imagePullSecrets": [{"name": "x"}],
        "initContainers": [{"name": "x", "image": "x"}],
        "ephemeralContainers": [{"name": "x", "image": "x"}],
        "dnsPolicy": "None",
        "dnsConfig": {"nameservers": ["1.2.3.4"]},
        "schedulerName": "other",
        "serviceAccount": "concordat-agent",
        "resourceClaims": [{"name": "x"}],
        "setHostnameAsFQDN": True,
        "activeDeadlineSeconds": 1,
        "runtimeClassName": "other",
    },
    (*POD, "securityContext"): {
        "supplementalGroups": [0],
        "sysctls": [{"name": "x", "value": "1"}],
        "seLinuxOptions": {"level": "s0"},
        "appArmorProfile": {"type": "Unconfined"},
    },
    CONTAINER: {
        "args": ["--more"],
        "envFrom": [{"secretRef": {"name": "x"}}],
        "ports": [{"containerPort": 80}],
        "lifecycle": {"postStart": {"exec": {"command": ["x"]}}},
        "livenessProbe": {"exec": {"command": ["x"]}},
        "volumeDevices": [{"name": "x", "devicePath": "/dev/x"}],
        "stdin": True,
        "tty": True,
        "workingDir": "/out",
        "restartPolicy": "Always",
        "terminationMessagePath": "/out/x",
    },
    (*CONTAINER, "securityContext"): {
        "privileged": True,
        "runAsUser": 0,
        "runAsNonRoot": False,
        "procMount": "Unmasked",
        "seccompProfile": {"type": "Unconfined"},
    },
    (*CONTAINER, "securityContext", "capabilities"): {"add": ["SYS_ADMIN"]},
    (*CONTAINER, "resources"): {"claims": [{"name": "x"}]},
    (*CONTAINER, "resources", "limits"): {"nvidia.com/gpu": "1"},
    (*CONTAINER, "env", 0): {"valueFrom": {"secretKeyRef": {"name": "x", "key": "y"}}},
    (*CONTAINER, "volumeMounts", 0): {"mountPropagation": "Bidirectional", "subPathExpr": "$(HOME)"},
    (*POD, "volumes", 0): {"hostPath": {"path": "/"}},
}


@pytest.mark.parametrize("kind", ["train", "evaluate"])
@pytest.mark.parametrize(("path", "field"), [(path, field) for path, fields in _ADDED.items() for field in fields])
def test_no_field_may_be_added(make: Make, kind: str, path: tuple[Any, ...], field: str) -> None:
    job = make.jobs()[kind]
    found = make.served(job)
    _at(found, path)[field] = _ADDED[path][field]
    difference = same_job(found, job)
    assert difference is not None
    assert field in difference


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("path", "item"),
    [
        ((*POD, "containers"), {"name": "x", "image": "x"}),
        ((*POD, "volumes"), {"name": "key", "persistentVolumeClaim": {"claimName": "state"}}),
        ((*POD, "volumes"), {"name": "key", "secret": {"secretName": "x"}}),
        ((*CONTAINER, "env"), {"name": "LD_PRELOAD", "value": "/out/x.so"}),
        ((*CONTAINER, "volumeMounts"), {"name": "workspace", "mountPath": "/all"}),
        ((*CONTAINER, "command"), "--more"),
        (("metadata", "ownerReferences"), {"kind": "Update", "uid": "x"}),
        (("spec", "podFailurePolicy", "rules"), {"action": "Ignore"}),
    ],
)
def test_no_item_may_be_added_taken_away_or_moved(make: Make, kind: str, path: tuple[Any, ...], item: Any) -> None:
    job = make.jobs()[kind]
    more, fewer, moved = (make.served(job) for _ in range(3))
    _at(more, path).append(item)
    _at(fewer, path).pop()
    _at(moved, path).reverse()
    assert "entries, expected" in str(same_job(more, job))
    assert same_job(fewer, job) is not None
    assert (same_job(moved, job) is None) is (len(_at(job, path)) == 1)


@given(st.sampled_from(KINDS), st.data())
def test_any_unknown_field_anywhere_is_found(make: Make, kind: str, data: st.DataObject) -> None:
    job = make.jobs()[kind]
    maps = [path for path in paths(job) if path[0] == "spec" and isinstance(_at(job, path), dict)]
    path = data.draw(st.sampled_from(maps))
    value: Any = data.draw(st.booleans() | st.integers() | st.text() | st.just([]) | st.just({}))
    found = make.served(job)
    _at(found, path)["another"] = value
    assert "another is " in str(same_job(found, job))


def test_differences_are_told_in_words(make: Make) -> None:
    job = make.jobs()["train"]
    found = make.served(job)
    found["spec"]["template"]["spec"]["containers"][0]["image"] = "evil@sha256:0"
    assert same_job(found, job) == (
        "spec.template.spec.containers[0].image is 'evil@sha256:0', "
        "expected 'registry.local/learning@sha256:0123456789abcdef" + "0" * 48 + "'"
    )
    found = make.served(job)
    found["spec"]["template"]["spec"]["hostNetwork"] = True
    assert same_job(found, job) == "spec.template.spec.hostNetwork is True, expected to be absent"
    found["spec"]["template"]["spec"]["hostNetwork"] = "x" * 1000
    assert len(str(same_job(found, job))) < 250


def test_what_does_not_matter_may_differ(make: Make) -> None:
    job = make.jobs()["train"]
    found = make.served(job)
    found["spec"]["suspend"] = True
    found["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] = "queue"
    found["metadata"]["annotations"] = {"note": "x"}
    found["status"] = {"conditions": [{"type": "Complete", "status": "True"}]}
    assert same_job(found, job) is None


def test_quantities_are_compared_by_value_and_only_quantities(make: Make) -> None:
    job = make.jobs()["train"]
    found = make.served(job)
    container = found["spec"]["template"]["spec"]["containers"][0]
    container["resources"]["limits"] |= {"cpu": "1000m", "memory": "2048Mi"}
    found["spec"]["template"]["spec"]["volumes"][-1]["emptyDir"]["sizeLimit"] = "1024Mi"
    assert same_job(found, job) is None
    container["env"][1]["value"] = "1000m"
    assert "env[1].value" in str(same_job(found, job))


def test_another_name_is_another_job_and_true_is_not_one(make: Make) -> None:
    job = make.jobs()["train"]
    renamed, odd = copy.deepcopy(job), copy.deepcopy(job)
    renamed["metadata"]["name"] = "another"
    odd["spec"]["parallelism"] = True
    assert str(same_job(renamed, job)).startswith("metadata.name is 'another'")
    assert same_job(odd, job) == "spec.parallelism is True, expected 1"


@pytest.mark.parametrize("found", [{}, {"metadata": None, "spec": None}, {"spec": {"template": {"metadata": []}}}])
def test_what_is_no_job_is_another_job(make: Make, found: dict[str, Any]) -> None:
    assert same_job(copy.deepcopy(found), make.jobs()["train"]) is not None
