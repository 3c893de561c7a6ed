"""The Jobs as a real API server takes them: unchanged but for its defaults, within Pod Security `restricted`, and
within the admission policy of the operator's chart, which lets nothing else through.
"""

from __future__ import annotations

import copy
import json
import subprocess
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from concordat.api import FederationRound, Release, Site, Update
from concordat.api.types import ArtifactRef
from concordat.jobs import aggregation_job, evaluation_job, same_job, training_job
from concordat.statements import SigningKey
from concordat_devcluster.control_plane import ControlPlane
from concordat_devcluster.errors import DevclusterError
from concordat_devcluster.paths import REPOSITORY
from concordat_devcluster.processes import wait_for
from concordat_devcluster.tools import ensure_tools
from tests.support import contracts
from tests.support.waiting import HANG_SECONDS

AT = datetime(2026, 11, 24, 12, tzinfo=UTC)
DIGEST = "sha256:" + "a" * 64
REF = {"repository": "digits/x", "digest": DIGEST}
IMAGE = "registry.local/learning@" + DIGEST
RUNTIME_CLASS = "concordat-isolated"
KINDS = ("train", "evaluate", "aggregate")
Jobs = dict[str, dict[str, Any]]


class Place:
    """A hub and a site in an API server, with the identities and the policy that the charts bring."""

    def __init__(self, server: ControlPlane) -> None:
        self.server = server
        unique = uuid.uuid4().hex[:8]
        self.hub, self.site = f"hub-{unique}", f"site-{unique}"
        self.operator = server.kubeconfig_for(f"system:serviceaccount:{self.hub}:concordat-operator")
        restricted = {"pod-security.kubernetes.io/enforce": "restricted"}
        rules = [{"apiGroups": ["batch"], "resources": ["jobs"], "verbs": ["create"]}]
        self.objects = [
            *(_object("v1", "Namespace", name, labels=restricted) for name in (self.hub, self.site)),
            _object("v1", "ServiceAccount", "concordat-trainer", self.site),
            _object("v1", "ServiceAccount", "concordat-aggregator", self.hub),
            _object("node.k8s.io/v1", "RuntimeClass", RUNTIME_CLASS, handler="x"),
            _object("rbac.authorization.k8s.io/v1", "ClusterRole", self.hub, rules=rules),
            _object(
                "rbac.authorization.k8s.io/v1",
                "ClusterRoleBinding",
                self.hub,
                roleRef={"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": self.hub},
                subjects=[{"kind": "ServiceAccount", "name": "concordat-operator", "namespace": self.hub}],
            ),
        ]
        self.apply(*self.objects)

    def apply(self, *objects: dict[str, Any]) -> None:
        """Create objects as administrator."""
        self.server.kubectl(
            "apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
        )

    def create(self, manifest: dict[str, Any], *flags: str) -> dict[str, Any]:
        """Create an object as the operator. Raises DevclusterError with the API server's words."""
        created: dict[str, Any] = json.loads(
            self.server.kubectl(
                f"--kubeconfig={self.operator}", "create", "-f", "-", "-o", "json", *flags, stdin=json.dumps(manifest)
            )
        )
        return created

    def jobs(self) -> Jobs:
        """One of each, as the builders make them."""
        key = SigningKey.generate().public
        ref = {"name": "r1", "namespace": self.hub, "uid": "0123abcd-1"}
        entry = {"name": self.site, "keyThumbprint": key.thumbprint, "publicKey": key.to_pem()}
        contract = contracts.contract(
            round={**ref, "generation": 1},
            base=REF,
            parent=REF,
            sites=[entry],
            # Written in a form that the API server rewrites.
            budget={"cpu": "1500m", "memory": "2048Mi"},
            recipe={"image": IMAGE, "trainFactor": "B"},
            runtimeClassName=RUNTIME_CLASS,
        )
        meant = {"federation": "digits", "roundRef": ref}
        asked = {"contract": REF, "contractDigest": DIGEST, "consentDeadline": AT, "submissionDeadline": AT}
        offered = {"sequence": 1, "base": REF, "adapter": REF, "runtimeClassName": RUNTIME_CLASS}
        parts = {
            "federations": [{"name": "digits", "dataClaim": "data"}],
            "workspaceClaim": "workspace",
            "judgingImage": IMAGE,
        }

        def metadata(name: str, namespace: str) -> dict[str, str]:
            return {"name": name, "namespace": namespace, "uid": str(uuid.uuid4())}

        site = Site.model_validate({"metadata": metadata(self.site, self.site), "spec": parts})
        update = Update.model_validate(
            {"metadata": metadata("r1-0123abcd", self.site), "spec": {**meant, **asked, "site": self.site}}
        )
        release = Release.model_validate({"metadata": metadata("r1-89abcdef", self.site), "spec": {**meant, **offered}})
        round_ = FederationRound.model_validate(
            {
                "metadata": metadata("r" * 40, self.hub),
                "spec": {"federation": "digits", "parent": {"channelRef": {"name": "stable"}}},
            }
        )
        request = ArtifactRef.model_validate(REF)
        return {
            "train": training_job(contract, update, site),
            "evaluate": evaluation_job(release, site),
            "aggregate": aggregation_job(
                round_, contract, request=request, image=IMAGE, registry_url="http://registry:5000"
            ),
        }


def _object(api_version: str, kind: str, name: str, namespace: str | None = None, **more: Any) -> dict[str, Any]:
    labels = {"labels": more.pop("labels")} if "labels" in more else {}
    where = {"namespace": namespace} if namespace else {}
    return {"apiVersion": api_version, "kind": kind, "metadata": {"name": name, **where, **labels}, **more}


def _policy(hub: str) -> str:
    """The admission policy as helm renders it."""
    values = [f"image.repository=x,image.digest={DIGEST}", f"registry.image=x@{DIGEST}"]
    flags = [flag for value in values for flag in ("--set", value)]
    command = [str(ensure_tools() / "helm"), "template", "concordat", str(REPOSITORY / "charts/concordat-operator")]
    return subprocess.run(
        [*command, "--namespace", hub, "--show-only", "templates/admissionpolicy.yaml", *flags],
        check=True,
        capture_output=True,
        text=True,
    ).stdout


@pytest.fixture(scope="module")
def place(api_server: ControlPlane) -> Iterator[Place]:
    place = Place(api_server)
    policy = _policy(place.hub)
    api_server.kubectl("apply", "-f", "-", stdin=policy)
    bare = _object("batch/v1", "Job", "x", place.site)
    bare["spec"] = {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "x", "image": "x"}]}}}

    def enforced() -> bool:
        try:
            place.create(bare, "--dry-run=server")
        except DevclusterError as error:
            return "concordat-operator-jobs" in str(error)
        return False

    try:
        wait_for("the admission policy", enforced, HANG_SECONDS, lambda: True, api_server.folder / "kube-apiserver.log")
        yield place
    finally:
        api_server.kubectl("delete", "-f", "-", stdin=policy)


@pytest.fixture(scope="module")
def jobs(place: Place) -> Jobs:
    return place.jobs()


@pytest.mark.parametrize("kind", KINDS)
def test_the_operator_may_create_it_and_the_agent_knows_it_again(place: Place, jobs: Jobs, kind: str) -> None:
    # What the server answers is what it stored. Not read again: its owner is made up, so it is soon collected.
    assert same_job(place.create(jobs[kind]), jobs[kind]) is None


@pytest.mark.parametrize("kind", KINDS)
def test_its_pod_is_within_pod_security_restricted(place: Place, jobs: Jobs, kind: str) -> None:
    pod = _object("v1", "Pod", f"pod-{kind}", jobs[kind]["metadata"]["namespace"], spec=_pod(jobs[kind]))
    place.server.kubectl("create", "--dry-run=server", "-f", "-", stdin=json.dumps(pod))
    worse = copy.deepcopy(pod)
    del worse["spec"]["containers"][0]["securityContext"]["capabilities"]
    with pytest.raises(DevclusterError, match="violates PodSecurity"):
        place.server.kubectl("create", "--dry-run=server", "-f", "-", stdin=json.dumps(worse))


def _pod(job: dict[str, Any]) -> dict[str, Any]:
    pod: dict[str, Any] = job["spec"]["template"]["spec"]
    return pod


def _set(path: tuple[Any, ...], value: Any) -> Callable[[dict[str, Any]], None]:
    def change(job: dict[str, Any]) -> None:
        target: Any = _pod(job)
        for step in path[:-1]:
            target = target[step]
        if isinstance(target, list):
            target.append(value)
        else:
            target[path[-1]] = value

    return change


_SECRET = {"secretKeyRef": {"name": "concordat-keys", "key": "contract.pem"}}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (_set(("serviceAccountName",), "concordat-agent"), "as concordat-trainer only"),
        (_set(("automountServiceAccountToken",), True), "automountServiceAccountToken must be false"),
        (_set(("containers", 0, "image"), "registry.local/learning:latest"), "every image must be given by digest"),
        (_set(("initContainers",), [{"name": "x", "image": "x"}]), "every image must be given by digest"),
        (_set(("volumes", None), {"name": "x", "secret": {"secretName": "x"}}), "volumes can be emptyDir"),
        (_set(("volumes", None), {"name": "x", "hostPath": {"path": "/"}}), "volumes can be emptyDir"),
        (
            _set(("volumes", None), {"name": "x", "persistentVolumeClaim": {"claimName": "state"}}),
            "holds the site's key",
        ),
        (_set(("containers", 0, "env", None), {"name": "X", "valueFrom": _SECRET}), "must be literal values"),
        (_set(("containers", 0, "envFrom"), [{"secretRef": {"name": "x"}}]), "must be literal values"),
        (_set(("hostNetwork",), True), "host's namespaces"),
        (_set(("hostPID",), True), "host's namespaces"),
        (_set(("securityContext", "runAsNonRoot"), False), "containers must run as non-root"),
        (_set(("containers", 0, "securityContext", "allowPrivilegeEscalation"), True), "without privilege escalation"),
        (_set(("runtimeClassName",), "other"), "must run with runtimeClassName concordat-isolated"),
    ],
)
def test_the_policy_lets_no_worse_job_through_and_the_agent_would_not_know_it(
    place: Place, jobs: Jobs, change: Callable[[dict[str, Any]], None], says: str
) -> None:
    worse = copy.deepcopy(jobs["train"])
    worse["metadata"]["name"] = "worse"
    place.create(worse, "--dry-run=server")
    change(worse)
    with pytest.raises(DevclusterError, match=says):
        place.create(worse, "--dry-run=server")
    assert same_job({**worse, "metadata": jobs["train"]["metadata"]}, jobs["train"]) is not None


def test_the_aggregator_mounts_no_claim(place: Place, jobs: Jobs) -> None:
    worse = copy.deepcopy(jobs["aggregate"])
    worse["metadata"]["name"] = "worse"
    _pod(worse)["volumes"].append({"name": "x", "persistentVolumeClaim": {"claimName": "x"}})
    with pytest.raises(DevclusterError, match="volumes can be emptyDir"):
        place.create(worse, "--dry-run=server")
