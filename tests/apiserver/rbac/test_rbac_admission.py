"""Which Jobs the operator may create: RBAC lets it create any, the ValidatingAdmissionPolicy says what is in them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from concordat.api import FederationRound, Release, Site, Update
from concordat.api.types import ArtifactRef
from concordat.jobs import aggregation_job, evaluation_job, training_job
from concordat.protocol.contract import Contract
from concordat.statements import SigningKey
from tests.apiserver.rbac.world import World
from tests.support.contracts import contract

Pod = dict[str, Any]
Change = Callable[[Pod], Any]
HUB, SITE, EVALUATOR, FOREIGN = "concordat", "site-a", "evaluator", "foreign"
RUNTIME_CLASS = "concordat-isolated"
REF = {"repository": "digits/adapters", "digest": "sha256:" + "a" * 64}
IMAGE = "registry.example/learning@" + REF["digest"]
ROUND = {"name": "r1", "namespace": HUB, "uid": "0123abcd-1"}
NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


def _contract(**changes: Any) -> Contract:
    key = SigningKey.generate().public
    sites = [{"name": SITE, "keyThumbprint": key.thumbprint, "publicKey": key.to_pem()}]
    where = {"round": {**ROUND, "generation": 1}, "base": REF, "parent": REF, "sites": sites}
    how = {"recipe": {"image": IMAGE, "trainFactor": "B"}, "runtimeClassName": RUNTIME_CLASS, "opens": NOW}
    return contract(**{**where, **how, **changes})


def _training() -> dict[str, Any]:
    update = Update.model_validate(
        {
            "metadata": {"name": "r1-0123abcd", "namespace": SITE, "uid": "1"},
            "spec": {
                "federation": "digits",
                "roundRef": ROUND,
                "site": SITE,
                "contract": REF,
                "contractDigest": REF["digest"],
                "consentDeadline": NOW,
                "submissionDeadline": NOW,
            },
        }
    )
    return training_job(_contract(), update, _site(SITE))


def _site(name: str) -> Site:
    spec = {
        "federations": [{"name": "digits", "dataClaim": "data"}],
        "workspaceClaim": "workspace",
        "judgingImage": IMAGE,
    }
    return Site.model_validate({"metadata": {"name": name, "namespace": name}, "spec": spec})


def _evaluation(namespace: str) -> dict[str, Any]:
    artifacts = {"base": REF, "adapter": REF, "runtimeClassName": RUNTIME_CLASS}
    spec = {"federation": "digits", "sequence": 1, **artifacts}
    release = Release.model_validate(
        {"metadata": {"name": "r1-aaaa", "namespace": namespace, "uid": "1"}, "spec": spec}
    )
    return evaluation_job(release, _site(namespace))


def _aggregation(**screening: Any) -> dict[str, Any]:
    round_ = FederationRound.model_validate(
        {
            "metadata": {"name": "r1", "namespace": HUB, "uid": "0123abcd-1"},
            "spec": {"federation": "digits", "parent": {"channelRef": {"name": "stable"}}, "quorum": 1},
        }
    )
    request = ArtifactRef.model_validate(REF)
    return aggregation_job(
        round_,
        _contract(screening=screening),
        request=request,
        image=IMAGE,
        canary_image=IMAGE,
        registry_url="http://registry:5000",
    )


@pytest.mark.parametrize(
    "job",
    [_training(), _evaluation(SITE), _evaluation(EVALUATOR), _aggregation(), _aggregation(canary={"claim": "canary"})],
    ids=[
        "training",
        "evaluation in a site",
        "evaluation by the evaluator",
        "aggregation",
        "aggregation with a canary",
    ],
)
def test_the_operators_own_jobs_are_admitted(world: World, operator: Path, job: dict[str, Any]) -> None:
    assert world.create(operator, job) == ""


def volume(**source: Any) -> Change:
    return lambda pod: pod["volumes"].append({"name": "more", **source})


def container(**changes: Any) -> Change:
    return lambda pod: pod["containers"][0].update(changes)


def security(**changes: Any) -> Change:
    """Changes the container's securityContext; None removes a member."""

    def change(pod: Pod) -> None:
        context = pod["containers"][0]["securityContext"]
        context.update(changes)
        for name in [name for name, value in changes.items() if value is None]:
            del context[name]

    return change


def beside(kind: str, **changes: Any) -> Change:
    """Adds a second container that differs in one thing."""
    return lambda pod: pod.setdefault(kind, []).append({**copy.deepcopy(pod["containers"][0]), "name": "x", **changes})


def secret_env(source: str, name: str = "site-key") -> dict[str, Any]:
    return {"name": "KEY", "valueFrom": {source: {"name": name, "key": "pem"}}}


AGGREGATOR = "as concordat-aggregator in its own namespace"
ACCOUNT = "the operator runs Jobs as concordat-trainer only"
TOKEN = "automountServiceAccountToken must be false"
DIGEST = "every image must be given by digest"
VOLUMES = "volumes can be emptyDir and persistentVolumeClaim only, in the hub's namespace the latter read-only"
STATE = "the claim \"state\" holds the site's key and is the agent's alone"
LITERAL = "environment variables must be literal values"
NAMESPACES = "the host's namespaces are not for Jobs"
UNPRIVILEGED = "containers must run as non-root, unprivileged, without privilege escalation or added capabilities"
RUNTIME = "Jobs in a site's namespace must run with runtimeClassName concordat-isolated"
PROJECTED = {"sources": [{"serviceAccountToken": {"path": "token"}}]}
OTHER_AUDIENCE = {"sources": [{"serviceAccountToken": {"path": "token", "audience": "x"}}]}
FOR_THE_GATEWAY = {"serviceAccountToken": {"path": "token", "audience": "concordat-gateway"}}
WITH_A_SECRET = {"sources": [FOR_THE_GATEWAY, {"secret": {"name": "concordat-keys"}}]}

REFUSED: list[tuple[str, Change, str]] = [
    ("another account", lambda pod: pod.update(serviceAccountName="concordat-agent"), ACCOUNT),
    ("the aggregator's account", lambda pod: pod.update(serviceAccountName="concordat-aggregator"), ACCOUNT),
    ("the default account", lambda pod: pod.pop("serviceAccountName"), ACCOUNT),
    ("a token", lambda pod: pod.update(automountServiceAccountToken=True), TOKEN),
    ("a token by default", lambda pod: pod.pop("automountServiceAccountToken"), TOKEN),
    ("an image by tag", container(image="registry.example/learning:1.0"), DIGEST),
    ("an image by tag and half a digest", container(image="registry.example/learning@sha256:abc"), DIGEST),
    ("a second image by tag", beside("containers", image="busybox"), DIGEST),
    ("an init image by tag", beside("initContainers", image="busybox"), DIGEST),
    ("a folder of the host", volume(hostPath={"path": "/"}), VOLUMES),
    ("a Secret as volume", volume(secret={"secretName": "site-key"}), VOLUMES),
    ("a ConfigMap as volume", volume(configMap={"name": "concordat-agent"}), VOLUMES),
    ("a projected token", volume(projected=PROJECTED), VOLUMES),
    ("a token for the gateway", volume(projected={"sources": [FOR_THE_GATEWAY]}), VOLUMES),
    ("a CSI volume", volume(csi={"driver": "secrets-store.csi.k8s.io"}), VOLUMES),
    ("a network volume", volume(nfs={"server": "10.0.0.1", "path": "/"}), VOLUMES),
    ("the claim with the key", volume(persistentVolumeClaim={"claimName": "state"}), STATE),
    ("the claim with the key, to read", volume(persistentVolumeClaim={"claimName": "state", "readOnly": True}), STATE),
    ("a Secret as environment", container(envFrom=[{"secretRef": {"name": "site-key"}}]), LITERAL),
    ("a Secret as variable", container(env=[secret_env("secretKeyRef")]), LITERAL),
    ("a ConfigMap as variable", container(env=[secret_env("configMapKeyRef")]), LITERAL),
    ("a Secret as variable of a second container", beside("initContainers", env=[secret_env("secretKeyRef")]), LITERAL),
    ("the host's network", lambda pod: pod.update(hostNetwork=True), NAMESPACES),
    ("the host's processes", lambda pod: pod.update(hostPID=True), NAMESPACES),
    ("the host's IPC", lambda pod: pod.update(hostIPC=True), NAMESPACES),
    ("escalation", security(allowPrivilegeEscalation=True), UNPRIVILEGED),
    ("escalation by default", security(allowPrivilegeEscalation=None), UNPRIVILEGED),
    ("a container as root", security(runAsNonRoot=False), UNPRIVILEGED),
    ("a capability", security(capabilities={"drop": ["ALL"], "add": ["SYS_PTRACE"]}), UNPRIVILEGED),
    ("no security context", container(securityContext=None), UNPRIVILEGED),
    ("a pod as root", lambda pod: pod["securityContext"].update(runAsNonRoot=False), UNPRIVILEGED),
    ("no pod security context", lambda pod: pod.pop("securityContext"), UNPRIVILEGED),
    ("a network", lambda pod: pod.pop("runtimeClassName"), RUNTIME),
    ("another runtime class", lambda pod: pod.update(runtimeClassName="runc"), RUNTIME),
]


@pytest.mark.parametrize(("change", "says"), [(c, s) for _, c, s in REFUSED], ids=[name for name, _, _ in REFUSED])
@pytest.mark.attack("F1, F15: a Job with a Secret, a token, the key, the host", "admission policy", "denied")
def test_another_shape_is_refused_in_a_site(world: World, operator: Path, change: Change, says: str) -> None:
    job = _training()
    change(job["spec"]["template"]["spec"])
    refusal = world.create(operator, job)
    assert "ValidatingAdmissionPolicy 'concordat-operator-jobs'" in refusal
    assert says in refusal


@pytest.mark.parametrize("suspend", [False, None])
@pytest.mark.attack("F1: a Job of the operator that runs at once in a site", "admission policy", "must be suspended")
def test_a_job_that_its_agent_has_not_seen_does_not_run(world: World, operator: Path, suspend: bool | None) -> None:
    """Security finding F1: whatever its name and labels."""
    job = _training()
    job["metadata"] |= {"name": "x", "labels": {}}
    job["spec"]["suspend"] = suspend
    assert "a Job in a site's namespace must be suspended; the site's agent lets it run" in world.create(operator, job)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            lambda pod: pod.update(serviceAccountName="concordat-operator"),
            "as concordat-aggregator in its own namespace",
        ),
        (
            lambda pod: pod.update(serviceAccountName="concordat-trainer"),
            "as concordat-aggregator in its own namespace",
        ),
        (volume(persistentVolumeClaim={"claimName": "store-concordat-registry-0"}), VOLUMES),
        (volume(secret={"secretName": "concordat-keys"}), VOLUMES),
        (
            container(env=[{"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "concordat-keys", "key": "x"}}}]),
            LITERAL,
        ),
        (container(image="operator:latest"), DIGEST),
        (volume(projected=PROJECTED), VOLUMES),
        (volume(projected=OTHER_AUDIENCE), VOLUMES),
        (volume(projected=WITH_A_SECRET), VOLUMES),
    ],
    ids=[
        *("own account", "trainer", "registry's volume", "own keys as volume", "own keys as variable", "tag"),
        *("a token for the API server", "a token for another", "own keys beside the token"),
    ],
)
@pytest.mark.attack("F7: a Job in the hub with its keys, or a token for the API server", "admission policy", "denied")
def test_another_shape_is_refused_in_the_hub(world: World, operator: Path, change: Change, says: str) -> None:
    """What sites send is read in there."""
    job = _aggregation()
    change(job["spec"]["template"]["spec"])
    assert says in world.create(operator, job)


def test_a_job_where_no_site_is_installed_is_forbidden(world: World, operator: Path) -> None:
    job = _training()
    job["metadata"]["namespace"] = FOREIGN
    assert 'cannot create resource "jobs"' in world.create(operator, job)


@pytest.mark.parametrize("party", ["agent", "trainer", "aggregator", "evaluator"])
def test_nobody_else_may_create_jobs_or_pods(world: World, who: Callable[[str], Path], party: str) -> None:
    job = _training()
    assert 'cannot create resource "jobs"' in world.create(who(party), job)
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "x", "namespace": SITE},
        "spec": job["spec"]["template"]["spec"],
    }
    assert 'cannot create resource "pods"' in world.create(who(party), pod)


def test_the_policy_binds_the_operator_only(world: World) -> None:
    """A site's own people run what they like."""
    job = _training()
    pod = job["spec"]["template"]["spec"]
    pod["containers"][0]["image"] = "registry.example/tool:1.0"
    assert world.create(world.control_plane.kubeconfig, job) == ""
