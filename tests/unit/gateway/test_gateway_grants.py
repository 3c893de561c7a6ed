"""From challenge to grant: what a site has to show, and every way in which it gets none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from concordat.api import FederationRound, Membership
from concordat.api.attestation import Evidence, Tier
from concordat.controller import Cache, FixedClock
from concordat.protocol.canonical import canonical, sha256_digest
from concordat.statements import SigningKey, sign
from concordat.statements.contract import SignedContract, contract_statement, open_contract
from concordat.statements.grant import Grant, Purpose, Shown, open_grant
from concordat_gateway.contracts import Contracts
from concordat_gateway.grants import Grants
from concordat_gateway.refusals import Denied, NotYet, Refused, Stale
from concordat_gateway.rights import AGENT, Caller, Pod
from tests.support.contracts import contract
from tests.support.hub import NOW, REF, Make

HUB, OTHER = "concordat", "sha256:" + "9" * 64
KEY, NEIGHBOUR, GATEWAY, SIGNER = (SigningKey.generate() for _ in range(4))
IMAGE = "registry/learning@sha256:" + "1" * 64
AGENT_IMAGE = "sha256:" + "2" * 64


class Known(Contracts):
    """Contracts that need not be fetched."""

    def __init__(self, cache: Cache, signed: SignedContract) -> None:
        nowhere: Any = None
        super().__init__(HUB, nowhere, cache, nowhere)
        self._known[signed.digest] = signed


class Seen:
    """A site's namespace, as the API server reports it."""

    def __init__(self) -> None:
        self.agent: dict[str, Any] = {
            "metadata": {"name": "agent-x", "uid": "uid-1"},
            "spec": {"serviceAccountName": AGENT, "containers": [{"name": "agent"}]},
            "status": {"containerStatuses": [{"name": "agent", "imageID": AGENT_IMAGE}]},
        }
        self.trainer: dict[str, Any] = {
            "metadata": {"name": "t", "labels": {"batch.kubernetes.io/controller-uid": "job-1"}},
            "spec": {"containers": [{"name": "trainer"}]},
            "status": {"phase": "Succeeded", "containerStatuses": [{"name": "trainer", "imageID": IMAGE}]},
        }
        self.gone = False

    async def pod(self, namespace: str, name: str) -> dict[str, Any]:
        """The agent's pod."""
        assert (namespace, name) == ("site-a", "agent-x")
        return self.agent

    async def job(self, namespace: str, name: str) -> dict[str, Any]:
        """The training Job, ended well."""
        assert (namespace, name) == ("site-a", "r1-0123abcd")
        if self.gone:
            raise Denied("Job site-a/r1-0123abcd is gone, as the API server says")
        status = {"startTime": "2026-11-24T12:01:00Z", "completionTime": "2026-11-24T12:02:00Z"}
        ended = {"conditions": [{"type": "Complete", "status": "True"}], **status}
        return {"metadata": {"name": name, "uid": "job-1"}, "status": ended}

    async def pods_of(self, namespace: str, job: str) -> list[dict[str, Any]]:
        """Its pod."""
        assert (namespace, job) == ("site-a", "r1-0123abcd")
        return [self.trainer]


class Hub:
    """A hub with one open round of two sites."""

    def __init__(self, **changes: Any) -> None:
        entries = [
            {"name": name, "keyThumbprint": key.public.thumbprint, "publicKey": key.public.to_pem()}
            for name, key in (("site-a", KEY), ("site-b", NEIGHBOUR))
        ]
        self.contract = contract(sites=entries, recipe={"image": IMAGE, "trainFactor": "B"}, **changes)
        document = self.contract.wire()
        self.digest = sha256_digest(canonical(document))
        bundle = sign(contract_statement(document, self.digest), SIGNER)
        signed = open_contract(bundle, [SIGNER.public], digest=self.digest)
        self.clock, self.cache, self.seen, self._version = FixedClock(NOW), Cache(), Seen(), 0
        self.cache.watch([Membership, FederationRound])
        self.member()
        self.round()
        self.grants = Grants(HUB, GATEWAY, self.cache, Known(self.cache, signed), self.seen, self.clock)
        self.caller = Caller("site-a", AGENT, Pod("agent-x", "uid-1"))
        self.nonce = ""

    def _feed(self, wire: dict[str, Any], uid: str) -> None:
        self._version += 1
        wire["metadata"] |= {"uid": uid, "resourceVersion": str(self._version)}
        self.cache.feed(wire)

    def member(self, **spec: Any) -> None:
        """The Membership of site-a."""
        keys = [{"publicKey": KEY.public.to_pem()}]
        self._feed(Make().membership("site-a", **{"keys": keys, **spec}).wire(), "member")

    def round(self, **status: Any) -> None:
        """The round, contracted."""
        at = {"artifact": REF, "sha256": self.digest, "contractedTime": NOW}
        self._feed(Make().round({"contract": at, **status}).wire(), self.contract.round.uid)

    def shown(self, **changes: Any) -> Shown:
        """What the agent shows, over a fresh nonce unless it says another."""
        if "nonce" not in changes:
            self.nonce = self.grants.challenge(self.caller, self.digest)[0]
        made = Shown(
            contract=self.digest,
            site="site-a",
            purpose=Purpose.TRAIN,
            nonce=self.nonce,
            policy=OTHER,
            base=self.contract.base.digest,
            job_uid="job-1",
        )
        return replace(made, **changes)

    async def ask(self, key: SigningKey = KEY, *, held: bytes | None = None, **changes: Any) -> bytes:
        """Show evidence, signed; `held` is the grant to train."""
        return await self.grants.grant(self.caller, sign(self.shown(**changes).statement(), key), held)

    async def send(self, held: bytes | None = None, **changes: Any) -> Grant:
        """Ask for a grant to send, with one to train before it."""
        held = held or await self.ask()
        named = open_grant(held, [GATEWAY.public]).id
        sent = {"purpose": Purpose.SEND, "update": OTHER, "training": named, **changes}
        return open_grant(await self.ask(held=held, **sent), [GATEWAY.public])


async def test_a_site_that_shows_everything_gets_both_grants() -> None:
    hub = Hub()
    held = await hub.ask()
    training = open_grant(held, [GATEWAY.public])
    assert (training.purpose, training.site, training.job_uid) == (Purpose.TRAIN, "site-a", "job-1")
    assert (training.not_before, training.not_after) == (NOW, NOW + timedelta(minutes=30))
    assert training.found[Evidence.AGENT_POD] == {"pod": "agent-x", "uid": "uid-1", "images": [AGENT_IMAGE]}
    assert training.found[Evidence.SERVICE_ACCOUNT] == {"name": "site-a/concordat-agent"}
    sending = await hub.send(held)
    assert (sending.update, sending.training, sending.tier) == (OTHER, training.id, Tier.PLATFORM_OBSERVED)
    assert sending.found[Evidence.TRAINER_IMAGE]["image"] == IMAGE.rpartition("@")[2]
    assert set(sending.found) == set(Evidence)


async def test_the_grant_to_train_ends_with_the_round_and_a_later_deadline_is_heeded() -> None:
    hub = Hub()
    hub.clock.advance(50 * 60)
    assert open_grant(await hub.ask(), [GATEWAY.public]).not_after == NOW + timedelta(hours=1)
    later = {"statement": REF, "consentDeadline": NOW, "submissionDeadline": NOW + timedelta(hours=3)}
    hub.round(extension=later)
    assert open_grant(await hub.ask(), [GATEWAY.public]).not_after == NOW + timedelta(minutes=80)


async def test_the_contract_says_how_long_and_from_whom() -> None:
    hub = Hub(attestation={"leastTier": "SelfReported", "grantSeconds": 600})
    hub.caller = Caller("site-a", AGENT)
    held = await hub.ask()
    assert open_grant(held, [GATEWAY.public]).not_after == NOW + timedelta(minutes=10)
    sending = await hub.send(held)
    assert sending.tier is Tier.SELF_REPORTED
    assert Evidence.TRAINER_IMAGE not in sending.found


async def test_the_agents_of_other_members_are_told_apart() -> None:
    hub = Hub()
    hub.member(agentImages=[AGENT_IMAGE])
    await hub.ask()
    hub.member(agentImages=[OTHER])
    with pytest.raises(Denied, match="not among agentImages"):
        await hub.ask()


def _caller(hub: Hub, caller: Caller) -> None:
    hub.caller = caller


def _ended(hub: Hub, type_: str, status: str) -> None:
    hub.round(conditions=Make().conditions(**{type_: status}))


BEFORE: dict[str, tuple[Callable[[Hub], Any], type[Refused], str]] = {
    "no member": (lambda hub: _caller(hub, Caller("site-x", AGENT)), Denied, "site-x is no member"),
    "suspended": (lambda hub: hub.member(suspended=True), Denied, "is suspended"),
    "a round that has ended": (lambda hub: _ended(hub, "Succeeded", "False"), Denied, "takes no updates any more"),
    "a round that has all": (lambda hub: _ended(hub, "UpdatesCollected", "True"), Denied, "takes no updates any more"),
}


@pytest.mark.parametrize("name", BEFORE)
@pytest.mark.attack("a grant for no member, a suspended one, a round that is over", "gateway", "REFUSED")
async def test_who_may_not_take_part_gets_no_nonce_either(name: str) -> None:
    change, raised, says = BEFORE[name]
    hub = Hub()
    evidence = sign(hub.shown().statement(), KEY)
    change(hub)
    with pytest.raises(raised, match=says):
        hub.grants.challenge(hub.caller, hub.digest)
    with pytest.raises(raised, match=says):
        await hub.grants.grant(hub.caller, evidence)


@pytest.mark.parametrize(
    ("key", "changes", "raised", "says"),
    [
        (NEIGHBOUR, {}, Denied, "the evidence does not hold"),
        (KEY, {"site": "site-b"}, Denied, "is of site 'site-b', the token of site-a"),
        (KEY, {"base": OTHER}, Denied, f"base package {OTHER} is staged"),
        (KEY, {"nonce": "AAAA"}, Stale, "none of this gateway"),
        (KEY, {"contract": OTHER}, NotYet, f"no round of this hub has contract {OTHER}"),
        (KEY, {"purpose": Purpose.SEND, "update": OTHER, "training": OTHER}, Denied, "the grant to train is missing"),
    ],
)
@pytest.mark.attack("evidence by another key, of another site, contract, base, without nonce", "gateway", "REFUSED")
async def test_evidence_that_does_not_hold(
    key: SigningKey, changes: dict[str, Any], raised: type[Refused], says: str
) -> None:
    with pytest.raises(raised, match=says):
        await Hub().ask(key, **changes)


async def test_what_is_no_evidence_is_refused() -> None:
    hub = Hub()
    for garbage in (b"", b"{}", b"\xff", sign(contract_statement({}, hub.digest), KEY)):
        with pytest.raises(Denied, match="the evidence"):
            await hub.grants.grant(hub.caller, garbage)


@pytest.mark.attack("evidence shown twice", "gateway", "STALE_NONCE")
async def test_evidence_is_good_for_one_grant() -> None:
    hub = Hub()
    evidence = sign(hub.shown().statement(), KEY)
    await hub.grants.grant(hub.caller, evidence)
    with pytest.raises(Stale, match="was used before"):
        await hub.grants.grant(hub.caller, evidence)


async def test_evidence_may_be_shown_again_while_something_is_not_known_yet() -> None:
    hub = Hub()
    evidence, status = sign(hub.shown().statement(), KEY), hub.seen.agent.pop("status")
    for _ in range(2):
        with pytest.raises(NotYet, match="does not report yet"):
            await hub.grants.grant(hub.caller, evidence)
    hub.seen.agent["status"] = status
    await hub.grants.grant(hub.caller, evidence)
    with pytest.raises(Stale):
        await hub.grants.grant(hub.caller, evidence)


@pytest.mark.attack("a key that was rotated out, or put out of force", "gateway", "REFUSED")
async def test_a_key_that_counts_no_more_gets_no_grant() -> None:
    hub = Hub()
    for keys in (
        [{"publicKey": NEIGHBOUR.public.to_pem()}],
        [{"publicKey": KEY.public.to_pem(), "notAfter": NOW}],
        [{"publicKey": "no key"}],
    ):
        hub.member(keys=keys)
        with pytest.raises(Denied, match="not among those of the site's Membership that count now"):
            await hub.ask()


async def test_a_member_that_left_the_federation_gets_no_grant() -> None:
    hub = Hub()
    hub.member(federations=["letters"])
    with pytest.raises(Denied, match="site-a is no member of federation digits"):
        await hub.ask()


async def test_after_the_deadline_there_is_none() -> None:
    hub = Hub()
    hub.clock.advance(3600)
    with pytest.raises(Denied, match="the submission deadline of round r1 has passed"):
        await hub.ask()


async def test_a_site_without_a_pod_here_is_refused_where_pods_are_to_be_seen() -> None:
    hub = Hub()
    hub.caller = Caller("site-a", AGENT)
    with pytest.raises(Denied, match="is of no pod of this cluster; its contract demands PlatformObserved"):
        await hub.ask()
    lax = Hub(attestation={"leastTier": "SelfReported"})
    lax.caller = Caller("site-a", AGENT)
    await lax.ask()
    lax.member(leastTier="PlatformObserved")
    with pytest.raises(Denied, match="its Membership demands PlatformObserved"):
        await lax.ask()


def _signed(hub: Hub, key: SigningKey = GATEWAY, **changes: Any) -> bytes:
    """A grant to train with changes."""
    made = Grant(
        contract=hub.digest,
        round_uid=hub.contract.round.uid,
        site="site-a",
        key=KEY.public.thumbprint,
        purpose=Purpose.TRAIN,
        nonce=OTHER,
        evidence=OTHER,
        job_uid="job-1",
        not_before=NOW,
        not_after=NOW + timedelta(minutes=30),
        found={},
    )
    return sign(replace(made, **changes).statement(), key)


@pytest.mark.parametrize(
    ("key", "changes", "says"),
    [
        (KEY, {}, "the grant to train does not hold"),
        (GATEWAY, {"purpose": Purpose.SEND, "update": OTHER, "training": OTHER}, "is to send"),
        (GATEWAY, {"contract": OTHER}, "is under contract"),
        (GATEWAY, {"site": "site-b"}, "is for site site-b"),
        (GATEWAY, {"job_uid": "job-2"}, "is for Job job-2, the update is of Job job-1"),
        (GATEWAY, {"not_after": NOW - timedelta(minutes=10)}, "began at"),
    ],
)
@pytest.mark.attack("a grant to train that is forged, of another site, contract or Job, expired", "gateway", "REFUSED")
async def test_a_grant_to_train_for_something_else(key: SigningKey, changes: dict[str, Any], says: str) -> None:
    hub = Hub()
    held = _signed(hub, key, **changes)
    named = open_grant(held, [key.public]).id
    with pytest.raises(Denied, match=says):
        await hub.ask(held=held, purpose=Purpose.SEND, update=OTHER, training=named)


async def test_another_grant_to_train_than_the_evidence_names() -> None:
    hub = Hub()
    with pytest.raises(Denied, match="is not the one that the evidence names"):
        await hub.send(_signed(hub), training=OTHER)


async def test_what_trained_is_looked_at() -> None:
    hub = Hub()
    hub.seen.trainer["status"]["containerStatuses"][0]["imageID"] = OTHER
    with pytest.raises(Denied, match=f"ran {OTHER}, the contract's image is"):
        await hub.send()
    hub.seen.gone = True
    with pytest.raises(Denied, match="is gone"):
        await hub.send()


async def test_a_slot_is_open_to_the_sites_of_an_open_round() -> None:
    hub, uid = Hub(), "0123abcd-1"
    contracts = hub.grants._contracts
    assert await contracts.objection(uid, "site-a") is None
    assert await contracts.objection(uid, "site-c") == "site-c is not in the contract of round r1"
    assert await contracts.objection("other", "site-a") == "no round with uid other is open"
    _ended(hub, "UpdatesCollected", "True")
    assert await contracts.objection(uid, "site-a") is None
    _ended(hub, "Succeeded", "True")
    assert await contracts.objection(uid, "site-a") == f"no round with uid {uid} is open"
