"""What the Jobs may and may not do; the API server's own judgement of them is in tests/apiserver/agent."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from concordat.api.types import ArtifactRef
from concordat.jobs import JobError, aggregation_job, aggregation_job_name, evaluation_job, training_job
from concordat.jobs.quantity import value
from tests.support.jobs import CANARY_IMAGE, Make

KINDS = ("train", "evaluate", "aggregate")
CANARY = {"canary": {"claim": "canary"}}


def _pod(job: dict[str, Any]) -> dict[str, Any]:
    pod: dict[str, Any] = job["spec"]["template"]["spec"]
    return pod


def _container(job: dict[str, Any]) -> dict[str, Any]:
    (container,) = _pod(job)["containers"]
    found: dict[str, Any] = container
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_every_job_is_unprivileged_and_has_no_credentials(make: Make, kind: str) -> None:
    job = make.jobs()[kind]
    pod, container = _pod(job), _container(job)
    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert "initContainers" not in pod
    assert all("valueFrom" not in variable for variable in container["env"])
    sources = {next(k for k in volume if k != "name") for volume in pod["volumes"]}
    assert sources <= {"emptyDir", "persistentVolumeClaim"} | ({"projected"} if kind == "aggregate" else set())
    assert container["image"] == make.image


@pytest.mark.parametrize("kind", KINDS)
def test_every_job_ends_and_is_deleted_with_its_owner(make: Make, kind: str) -> None:
    job = make.jobs()[kind]
    spec, (owner,) = job["spec"], job["metadata"]["ownerReferences"]
    assert spec["activeDeadlineSeconds"] > 0
    assert spec["ttlSecondsAfterFinished"] >= 86_400, "finding 13: who reads the outcome may be away for a day"
    assert (owner["controller"], "blockOwnerDeletion" in owner) == (True, False)
    assert owner["kind"] == {"train": "Update", "evaluate": "Release", "aggregate": "FederationRound"}[kind]
    assert job["metadata"]["namespace"] == {"aggregate": "concordat"}.get(kind, "site-a")


@pytest.mark.parametrize("kind", KINDS)
def test_a_disruption_is_free_exit_75_a_killed_and_a_lost_container_are_tried_again_all_else_is_final(
    make: Make, kind: str
) -> None:
    job = make.jobs()[kind]
    ignore, fail = job["spec"]["podFailurePolicy"]["rules"]
    assert (ignore["action"], ignore["onPodConditions"]) == ("Ignore", [{"type": "DisruptionTarget", "status": "True"}])
    assert fail == {
        "action": "FailJob",
        "onExitCodes": {"containerName": _container(job)["name"], "operator": "NotIn", "values": [75, 128, 137, 255]},
    }
    assert job["spec"]["backoffLimit"] == 2
    assert _pod(job)["restartPolicy"] == "Never"


def test_the_training_job_is_what_the_contract_says(make: Make) -> None:
    budget = {"maxSteps": 10, "maxWallSeconds": 600, "cpu": "1500m", "memory": "3Gi"}
    contract = make.contract(budget=budget, runtimeClassName="isolated")
    job = training_job(contract, make.update(), make.site())
    container = _container(job)
    assert (job["metadata"]["name"], job["metadata"]["namespace"]) == ("r1-0123abcd", "site-a")
    assert job["spec"]["activeDeadlineSeconds"] == 1200
    assert _pod(job)["runtimeClassName"] == "isolated"
    assert _pod(job)["serviceAccountName"] == "concordat-trainer"
    resources = container["resources"]
    assert resources["limits"] == {"cpu": "1500m", "memory": "3Gi", "ephemeral-storage": "1Gi"}
    assert resources["requests"] == {"cpu": "100m", "memory": "3Gi", "ephemeral-storage": "64Mi"}
    assert {"name": "OMP_NUM_THREADS", "value": "2"} in container["env"]
    assert " ".join(container["command"]) == (
        "python -m concordat_learning.train --base /base --task /task --data /data --out /out"
    )


def test_a_job_sees_its_own_folders_only_and_writes_one(make: Make) -> None:
    job = make.jobs()["train"]
    mounts = {mount.pop("mountPath"): mount for mount in _container(job)["volumeMounts"]}
    assert mounts == {
        "/base": {"name": "workspace", "subPath": "base/0123456789abcdef" + "0" * 48, "readOnly": True},
        "/task": {"name": "workspace", "subPath": "work/r1-0123abcd/in", "readOnly": True},
        "/out": {"name": "workspace", "subPath": "work/r1-0123abcd/out"},
        "/data": {"name": "data", "readOnly": True},
        "/tmp": {"name": "tmp"},  # noqa: S108
    }
    volumes = {volume["name"]: volume for volume in _pod(job)["volumes"]}
    assert volumes["workspace"]["persistentVolumeClaim"] == {"claimName": "workspace"}
    assert volumes["data"]["persistentVolumeClaim"] == {"claimName": "numbers", "readOnly": True}


@pytest.mark.parametrize("kind", KINDS)
def test_labels_are_on_the_job_and_on_its_pods(make: Make, kind: str) -> None:
    job = make.jobs()[kind]
    labels = job["metadata"]["labels"]
    assert labels == job["spec"]["template"]["metadata"]["labels"]
    assert labels["app.kubernetes.io/managed-by"] == "concordat-operator"
    assert (labels["concordat.dev/round"], labels["concordat.dev/round-uid"]) == ("r1", "0123abcd-1")
    assert labels["concordat.dev/federation"] == "digits"
    assert labels.get("concordat.dev/site") == {"aggregate": None}.get(kind, "site-a")


def test_the_evaluation_job(make: Make) -> None:
    job = evaluation_job(make.release(runtimeClassName=None), make.site())
    assert job["metadata"]["name"] == "r1-89abcdef"
    assert "runtimeClassName" not in _pod(job)
    assert _container(job)["command"][:3] == ["python", "-m", "concordat_learning.evaluate"]
    assert job["metadata"]["labels"]["concordat.dev/release"] == "r1-89abcdef"


def test_a_copy_of_the_start_of_a_federation_has_no_round(make: Make) -> None:
    job = evaluation_job(make.release(roundRef=None, sequence=0), make.site())
    assert "concordat.dev/round" not in job["metadata"]["labels"]


def test_the_aggregator_runs_in_the_hub_and_names_its_result_in_its_last_words(make: Make) -> None:
    job = make.jobs()["aggregate"]
    command = _container(job)["command"]
    assert command[:3] == ["python", "-m", "concordat_aggregator"]
    assert command[command.index("--request") + 1].startswith("digits/rounds/r1@sha256:")
    assert command[command.index("--result") + 1] == "/dev/termination-log"
    assert _pod(job)["serviceAccountName"] == "concordat-aggregator"
    assert "runtimeClassName" not in _pod(job)
    token = {"audience": "concordat-gateway", "expirationSeconds": 3600, "path": "token"}
    projected = {"sources": [{"serviceAccountToken": token}], "defaultMode": 0o644}
    assert {"name": "gateway", "projected": projected} in _pod(job)["volumes"]
    assert "--ca" not in command


def test_with_a_canary_four_containers_come_before_the_aggregator(make: Make) -> None:
    job = make.jobs({"screening": CANARY})["aggregate"]
    prepare, canary, combine, gate = _pod(job)["initContainers"]
    assert (prepare["image"], combine["image"]) == (_container(job)["image"],) * 2
    for container, until in ((prepare, "updates"), (combine, "candidate")):
        assert container["command"] == [*_container(job)["command"][:-2], "--until", until]
    for container in (canary, gate):
        assert container["command"][:3] == ["python", "-m", "concordat_learning.canary"]
    claim = {"name": "canary", "persistentVolumeClaim": {"claimName": "canary", "readOnly": True}}
    assert claim in _pod(job)["volumes"]
    assert "canary" in [mount["name"] for mount in canary["volumeMounts"]]
    for checking in (canary, gate):
        # Security finding F7: the check changes nothing of what the program made, and is the hub's own program.
        assert checking["image"] == CANARY_IMAGE != make.contract().image
        mounts = {
            mount["mountPath"]: (mount["name"], mount.get("readOnly", False)) for mount in checking["volumeMounts"]
        }
        written = {"/checked": ("checked", False), "/tmp": ("scratch", False)}  # noqa: S108
        assert mounts == {**written, "/hub": ("tmp", True), "/canary": ("canary", True)}
    for own in (combine, _container(job)):
        assert {"name": "checked", "mountPath": "/checked", "readOnly": True} in own["volumeMounts"]
    mounted = {c["name"]: {mount["name"] for mount in c["volumeMounts"]} for c in _pod(job)["initContainers"]}
    assert [name for name, volumes in mounted.items() if "gateway" in volumes] == ["prepare", "combine"]
    assert "canary" not in [mount["name"] for c in (prepare, _container(job)) for mount in c["volumeMounts"]]
    for container in (prepare, canary, combine, gate):
        assert container["securityContext"] == _container(job)["securityContext"]


@pytest.mark.attack("F7: the canary check by the contract's image", "operator", "JobNotAllowed")
def test_a_canary_is_not_checked_with_the_contracts_image(make: Make) -> None:
    """Security finding F7."""
    ref, contract = ArtifactRef(repository="x", digest="sha256:" + "0" * 64), make.contract(screening=CANARY)
    with pytest.raises(JobError, match="learningImage of the operator's chart"):
        aggregation_job(make.round(), contract, request=ref, image=make.image, registry_url="http://r")


def test_the_longest_name_of_a_round_still_makes_a_name(make: Make) -> None:
    assert len(aggregation_job_name(make.round("r" * 40))) <= 63
    ref = ArtifactRef(repository="x", digest="sha256:" + "0" * 64)
    job = aggregation_job(make.round("r" * 40), make.contract(), request=ref, image=make.image, registry_url="http://r")
    assert job["metadata"]["name"] == aggregation_job_name(make.round("r" * 40))


def test_what_a_job_cannot_be_made_from_is_told(make: Make) -> None:
    elsewhere = make.site(federations=[{"name": "letters", "dataClaim": "data"}])
    with pytest.raises(JobError, match="Site site-a takes no part in federation 'digits'"):
        training_job(make.contract(), make.update(), elsewhere)
    with pytest.raises(JobError, match="takes no part"):
        evaluation_job(make.release(), elsewhere)


@given(
    st.integers(1, 9_999_999).map("{}m".format) | st.integers(1, 9999).map(str),
    st.integers(1, 999_999).map(str),
    st.sampled_from(["Mi", "Gi"]),
    st.integers(10, 604_800),
)
def test_any_budget_makes_a_job_that_can_be_scheduled(make: Make, cpu: str, size: str, unit: str, seconds: int) -> None:
    budget = {"cpu": cpu, "memory": size + unit, "maxWallSeconds": seconds}
    job = training_job(make.contract(budget=budget), make.update(), make.site())
    resources = _container(job)["resources"]
    for name, limit in resources["limits"].items():
        assert 0 < value(resources["requests"][name]) <= value(limit)
    threads = next(int(v["value"]) for v in _container(job)["env"] if v["name"] == "OMP_NUM_THREADS")
    assert threads - 1 < value(cpu) <= threads


def test_the_same_facts_make_the_same_job(make: Make) -> None:
    assert make.jobs() == make.jobs()


@pytest.mark.parametrize("text", ["", "x", "1 Gi", "-1", "1e3", "1Pi", "٣", "1\n", "m"])
def test_what_is_no_quantity_is_told(text: str) -> None:
    with pytest.raises(ValueError, match="is no quantity"):
        value(text)


@pytest.mark.parametrize(("one", "other"), [("1", "1000m"), ("2Gi", "2048Mi"), ("1k", "1000"), ("0.5", "500m")])
def test_quantities_are_compared_by_value(one: str, other: str) -> None:
    assert value(one) == value(other)
