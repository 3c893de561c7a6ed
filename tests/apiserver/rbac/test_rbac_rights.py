"""Who may do what: the complete rights of every identity the charts make, and real calls with them."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from concordat.api import FederationRound, Release, ReleaseChannel, Site, Update
from concordat.api.types import FINALIZER, LABEL_MANAGED_BY, MANAGED_BY
from concordat.controller import LEASE, Cluster, FixedClock, Forbidden
from concordat.controller.leader import Leader, LeaderConfig
from concordat.protocol.locations import AGENT_LEASE, TRUST_CONFIGMAP
from concordat_agent.site.heartbeat import lease
from concordat_gateway import keys as gateway
from concordat_operator.history.sequences import highest_deleted, remember
from concordat_operator.keys import SECRET_NAME, load_or_create, publish_first, trust_configmap, with_gateway
from concordat_operator.main import LEASE_NAME
from tests.apiserver.rbac.world import World

Who = Callable[[str], Path]
HUB, SITE, EVALUATOR, FOREIGN = "concordat", "site-a", "evaluator", "foreign"
REF = {"repository": "digits/adapters", "digest": "sha256:" + "a" * 64}


def rules(*lines: str) -> set[str]:
    """ "verb verb: group/resource group/resource" as single rights."""
    out = set()
    for line in lines:
        verbs, _, resources = line.partition(": ")
        out |= {f"{verb} {resource}" for verb in verbs.split() for resource in resources.split()}
    return out


OURS = "concordat.dev"
LOOK = "get list watch: "
EVERYWHERE = rules(
    LOOK
    + " ".join(
        f"{OURS}/{kind}"
        for kind in ("federationrounds", "memberships", "sites", "updates", "releases", "releasechannels")
    ),
    LOOK + "batch/jobs coordination.k8s.io/leases",
)
IN_THE_HUB = rules(
    f"create delete: {OURS}/releases batch/jobs",
    f"patch delete: {OURS}/federationrounds",
    f"patch: {OURS}/federationrounds/status {OURS}/memberships/status",
    f"patch: {OURS}/releases/status {OURS}/releasechannels/status",
    "list: /pods",
    "create: /secrets /configmaps coordination.k8s.io/leases events.k8s.io/events",
    "get: /secrets=concordat-keys",
    "get: /configmaps=concordat-gateway",
    "get patch: /configmaps=concordat-trust /configmaps=concordat-quarantine /configmaps=concordat-sequences",
    "get update: coordination.k8s.io/leases=concordat-operator",
)
IN_A_SITE = rules(
    f"create delete: {OURS}/updates {OURS}/releases batch/jobs",
    f"patch: {OURS}/sites/status {OURS}/updates/status {OURS}/releases/status",
    "list: /pods",
    "create: events.k8s.io/events",
)
OF_THE_GATEWAY = rules(
    LOOK + f"{OURS}/memberships {OURS}/federationrounds",
    "create: /secrets /configmaps",
    "get: /secrets=concordat-gateway-key /configmaps=concordat-trust",
    "get patch: /configmaps=concordat-gateway",
)
ASKING = rules("create: authentication.k8s.io/tokenreviews")
OF_AN_AGENT = rules(
    LOOK + f"{OURS}/sites {OURS}/updates {OURS}/releases batch/jobs",
    f"patch: {OURS}/sites/status {OURS}/updates/status {OURS}/releases/status batch/jobs",
    "create: coordination.k8s.io/leases events.k8s.io/events",
    "patch: coordination.k8s.io/leases=concordat-agent",
)


@pytest.mark.parametrize(
    ("party", "namespace", "expected"),
    [
        ("operator", HUB, EVERYWHERE | IN_THE_HUB),
        ("operator", SITE, EVERYWHERE | IN_A_SITE),
        ("operator", EVALUATOR, EVERYWHERE | IN_A_SITE),
        ("operator", FOREIGN, EVERYWHERE),
        ("operator", "kube-system", EVERYWHERE),
        ("agent", SITE, OF_AN_AGENT),
        ("agent", HUB, set()),
        ("agent", EVALUATOR, set()),
        ("agent", FOREIGN, set()),
        ("evaluator", EVALUATOR, OF_AN_AGENT),
        ("evaluator", SITE, set()),
        ("evaluator", HUB, set()),
        ("gateway", HUB, ASKING | OF_THE_GATEWAY),
        ("gateway", SITE, ASKING | rules("get list: /pods", "get: batch/jobs")),
        ("gateway", FOREIGN, ASKING),
        *((party, namespace, set()) for party in ("trainer", "aggregator", "publisher") for namespace in (HUB, SITE)),
    ],
)
def test_rights_are_exactly_these(world: World, who: Who, party: str, namespace: str, expected: set[str]) -> None:
    anybody = world.rights(who("nobody"), namespace)
    assert world.rights(who(party), namespace) - anybody == expected


DENIED = [
    # what the operator's rights are most likely to be stretched to, in a site's namespace
    ("operator", "get", "secrets", SITE),
    ("operator", "list", "secrets", SITE),
    ("operator", "create", "secrets", SITE),
    ("operator", "get", "configmaps", SITE),
    ("operator", "create", "pods", SITE),
    ("operator", "create", "pods/exec", SITE),
    ("operator", "get", "pods/exec", SITE),
    ("operator", "create", "pods/attach", SITE),
    ("operator", "get", "pods/log", SITE),
    ("operator", "patch", "pods/ephemeralcontainers", SITE),
    ("operator", "create", "serviceaccounts/token", SITE),
    ("operator", "patch", "jobs.batch", SITE),
    ("operator", "update", "jobs.batch", SITE),
    ("operator", "create", "cronjobs.batch", SITE),
    ("operator", "create", "deployments.apps", SITE),
    ("operator", "patch", "updates.concordat.dev", SITE),
    ("operator", "patch", "sites.concordat.dev", SITE),
    ("operator", "create", "rolebindings.rbac.authorization.k8s.io", SITE),
    ("operator", "patch", "leases.coordination.k8s.io/concordat-agent", SITE),
    ("operator", "create", "leases.coordination.k8s.io", SITE),
    ("operator", "update", "leases.coordination.k8s.io/kube-scheduler", "kube-system"),
    ("operator", "create", "updates.concordat.dev", FOREIGN),
    ("operator", "create", "jobs.batch", FOREIGN),
    ("operator", "list", "secrets", HUB),
    ("operator", "get", "secrets/concordat-registry", HUB),
    ("operator", "delete", "secrets/concordat-keys", HUB),
    ("operator", "update", "secrets/concordat-keys", HUB),
    # what bounds the history: rounds of the hub only, one by one, and nothing else that people made
    ("operator", "deletecollection", "federationrounds.concordat.dev", HUB),
    ("operator", "create", "federationrounds.concordat.dev", HUB),
    ("operator", "delete", "federationrounds.concordat.dev", SITE),
    ("operator", "delete", "releasechannels.concordat.dev", HUB),
    ("operator", "delete", "sites.concordat.dev", SITE),
    ("operator", "delete", "configmaps/concordat-sequences", HUB),
    ("operator", "patch", "configmaps/other", HUB),
    ("operator", "patch", "releasechannels.concordat.dev", HUB),
    ("operator", "patch", "validatingadmissionpolicies.admissionregistration.k8s.io", HUB),
    ("operator", "delete", "validatingadmissionpolicybindings.admissionregistration.k8s.io", HUB),
    ("operator", "patch", "namespaces", HUB),
    ("operator", "impersonate", "serviceaccounts", SITE),
    # who is a member is for people to say
    ("operator", "create", "memberships.concordat.dev", HUB),
    ("operator", "patch", "memberships.concordat.dev", HUB),
    ("operator", "update", "memberships.concordat.dev", HUB),
    ("operator", "delete", "memberships.concordat.dev", HUB),
    # the gateway asks whose token it is, reads who is a member and what runs in a site, and keeps a key of its own
    ("gateway", "get", "secrets", HUB),
    ("gateway", "get", "secrets/concordat-keys", HUB),
    ("gateway", "patch", "configmaps/concordat-trust", HUB),
    ("gateway", "patch", "federationrounds.concordat.dev", HUB),
    ("gateway", "get", "pods/log", SITE),
    ("gateway", "create", "pods", SITE),
    ("gateway", "patch", "jobs.batch", SITE),
    ("gateway", "get", "secrets", SITE),
    ("gateway", "get", "pods", FOREIGN),
    ("operator", "get", "secrets/concordat-gateway-key", HUB),
    ("operator", "patch", "configmaps/concordat-gateway", HUB),
    ("gateway", "patch", "memberships.concordat.dev", HUB),
    ("gateway", "list", "memberships.concordat.dev", SITE),
    ("gateway", "list", "sites.concordat.dev", SITE),
    ("gateway", "create", "serviceaccounts/token", HUB),
    # an agent answers, it does not ask; it lets a Job run that the operator proposed, and says nothing of how it ended
    ("agent", "patch", "jobs.batch/status", SITE),
    ("agent", "create", "jobs.batch", SITE),
    ("agent", "delete", "jobs.batch", SITE),
    ("agent", "create", "pods", SITE),
    ("agent", "list", "pods", SITE),
    ("agent", "get", "secrets", SITE),
    ("agent", "create", "updates.concordat.dev", SITE),
    ("agent", "patch", "updates.concordat.dev", SITE),
    ("agent", "patch", "releases.concordat.dev", SITE),
    ("agent", "delete", "releases.concordat.dev", SITE),
    ("agent", "patch", "sites.concordat.dev", SITE),
    ("agent", "patch", "leases.coordination.k8s.io/other", SITE),
    ("agent", "list", "updates.concordat.dev", EVALUATOR),
    ("agent", "list", "federationrounds.concordat.dev", HUB),
    ("agent", "get", "configmaps/concordat-trust", HUB),
    ("agent", "create", "memberships.concordat.dev", HUB),
    ("agent", "list", "memberships.concordat.dev", HUB),
    ("agent", "create", "memberships.concordat.dev", SITE),
]


@pytest.mark.parametrize(("party", "verb", "resource", "namespace"), DENIED)
@pytest.mark.attack("each forbidden verb of each identity", "API server, RBAC", "forbidden")
def test_denied(world: World, who: Who, party: str, verb: str, resource: str, namespace: str) -> None:
    kind, _, name = resource.partition("/")
    below = name in {"exec", "attach", "log", "status", "token", "ephemeralcontainers"}
    subresource = [f"--subresource={name}"] if below else []
    target = kind if below else resource
    done = world.attempt(who(party), "auth", "can-i", verb, target, *subresource, "-n", namespace)
    assert done.stdout.strip() == "no", done.stderr


def ours(kind: str, namespace: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": "concordat.dev/v1alpha1",
        "kind": kind,
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    }


UPDATE_SPEC = {
    "federation": "digits",
    "roundRef": {"name": "r1", "namespace": HUB, "uid": "0123abcd-1"},
    "site": SITE,
    "contract": REF,
    "contractDigest": REF["digest"],
    "consentDeadline": "2026-11-24T12:00:00Z",
    "submissionDeadline": "2026-11-24T13:00:00Z",
}
RELEASE_SPEC = {"federation": "digits", "sequence": 0, "base": REF, "adapter": REF}


async def test_the_operator_can_do_its_work_in_the_hub(world: World, operator: Path, who: Who) -> None:
    """With the operator's own functions."""
    clock = FixedClock(datetime.now(UTC))
    world.kubectl("apply", "-f", "-", stdin=json.dumps(ours("FederationRound", HUB, "r1", round_spec())))
    channel = ours("ReleaseChannel", HUB, "stable", {"federation": "digits", "follow": "Approved"})
    world.kubectl("apply", "-f", "-", stdin=json.dumps(channel))
    # The gateway makes its key, with its own rights, and the operator finds the public half.
    async with Cluster(operator, qps=1000, burst=1000) as cluster, Cluster(who("gateway")) as as_gateway:
        await gateway.publish(as_gateway, HUB, await gateway.load_or_create(as_gateway, HUB, clock.now()), "a CA")
        keys = await load_or_create(cluster, HUB)
        keys = await with_gateway(keys, cluster, HUB)
        assert keys.gateway_ca == "a CA"
        assert (await load_or_create(cluster, HUB)).contract.public == keys.contract.public
        await publish_first(cluster, HUB, keys)
        await cluster.apply(trust_configmap(HUB, keys.trust({})), "concordat-operator")
        leader = Leader(cluster, LeaderConfig(namespace=HUB, name=LEASE_NAME, identity="pod-1"), clock)
        await leader.acquire()
        await leader.release()
        found = await cluster.get(FederationRound, HUB, "r1")
        version = found["metadata"]["resourceVersion"]
        await cluster.set_finalizers(FederationRound, HUB, "r1", [FINALIZER], version)
        made = await cluster.create(ours("Release", HUB, "digits-0", RELEASE_SPEC))
        for kind, name in ((FederationRound, "r1"), (Release, "digits-0"), (ReleaseChannel, "stable")):
            await cluster.apply_status(kind, HUB, name, {"observedGeneration": 1}, "concordat-operator")
        await event(cluster, made)
        await cluster.list_pods(HUB, "any")
        await remember(cluster, HUB, "digits", 7)
        await remember(cluster, HUB, "digits", 6)
        assert await highest_deleted(cluster, HUB, "digits") == 7
        assert await cluster.delete(Release, HUB, "digits-0", made["metadata"]["uid"])
        assert await cluster.delete(FederationRound, HUB, "r1", found["metadata"]["uid"])
        found = await cluster.get(FederationRound, HUB, "r1")
        await cluster.set_finalizers(FederationRound, HUB, "r1", [], found["metadata"]["resourceVersion"])
    assert "contract.pem" in world.kubectl("get", "secret", SECRET_NAME, "-n", HUB, "-o", "yaml")
    assert "trust.json" in world.kubectl("get", "configmap", TRUST_CONFIGMAP, "-n", HUB, "-o", "yaml")


async def test_the_operator_can_do_its_work_in_a_site(world: World, operator: Path, agent: Path) -> None:
    clock = FixedClock(datetime.now(UTC))
    async with Cluster(agent, qps=1000, burst=1000) as cluster:
        # Created by the first heartbeat, renewed by the second.
        await cluster.apply(lease(SITE, clock.now()), "concordat-agent")
        await cluster.apply(lease(SITE, clock.now()), "concordat-agent")
    async with Cluster(operator, qps=1000, burst=1000) as cluster:
        for kind in (FederationRound, Site, Update, Release, ReleaseChannel):
            await cluster.list(kind)
        heartbeats = await cluster.list(LEASE, labels={LABEL_MANAGED_BY: MANAGED_BY})
        assert (SITE, AGENT_LEASE) in {(o["metadata"]["namespace"], o["metadata"]["name"]) for o in heartbeats}
        update = await cluster.create(ours("Update", SITE, "r1-0123abcd", UPDATE_SPEC))
        await cluster.create(ours("Release", SITE, "digits-0", RELEASE_SPEC))
        for kind, name in ((Site, SITE), (Update, "r1-0123abcd"), (Release, "digits-0")):
            await cluster.apply_status(kind, SITE, name, {"observedGeneration": 1}, "concordat-operator")
        await event(cluster, update)
        await cluster.list_pods(SITE, "any")
    async with Cluster(agent, qps=1000, burst=1000) as cluster:
        for kind, name in ((Site, SITE), (Update, "r1-0123abcd"), (Release, "digits-0")):
            await cluster.list(kind, SITE)
            await cluster.apply_status(kind, SITE, name, {"observedGeneration": 1}, "concordat-agent")
        await event(cluster, update)
        with pytest.raises(Forbidden):
            await cluster.apply(ours("Update", SITE, "r1-0123abcd", UPDATE_SPEC), "concordat-agent")
        with pytest.raises(Forbidden):
            await cluster.list(Update)
        with pytest.raises(Forbidden):
            await cluster.apply(lease(EVALUATOR, clock.now()), "concordat-agent")
    async with Cluster(operator, qps=1000, burst=1000) as cluster:
        for kind, name in ((Update, "r1-0123abcd"), (Release, "digits-0")):
            assert await cluster.delete(kind, SITE, name)


async def test_a_site_withdraws_the_operators_rights_by_uninstalling(world: World, operator: Path) -> None:
    """In a namespace without a release of the site's chart the operator can look, and nothing else."""
    async with Cluster(operator, qps=1000, burst=1000) as cluster:
        assert await cluster.list(Update, FOREIGN) == []
        with pytest.raises(Forbidden):
            await cluster.create(ours("Update", FOREIGN, "r1-0123abcd", UPDATE_SPEC))
        with pytest.raises(Forbidden):
            await cluster.apply(lease(FOREIGN, datetime.now(UTC)), "concordat-operator")


async def event(cluster: Cluster, about: dict[str, Any]) -> None:
    await cluster.create_event(
        about, name=f"e-{about['kind'].lower()}-{id(cluster)}", reason="Tested", note="a test", warning=False,
        controller="concordat", at=datetime.now(UTC),
    )  # fmt: skip


def round_spec() -> dict[str, Any]:
    return {"federation": "digits", "parent": {"channelRef": {"name": "stable"}}, "quorum": 3}
