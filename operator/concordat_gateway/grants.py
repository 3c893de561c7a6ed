"""From a challenge to a grant: the site shows evidence, the gateway appraises it and signs what it found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Protocol

from concordat.api import Membership
from concordat.api.attestation import Evidence, Tier
from concordat.api.update import update_name
from concordat.controller import Cache, Clock
from concordat.protocol.contract import Contract
from concordat.statements import PublicKey, SigningKey, StatementError, sign, unverified
from concordat.statements.contract import SignedContract
from concordat.statements.fields import subject
from concordat.statements.grant import Grant, Purpose, Shown, nonce_digest, open_grant, open_shown
from concordat_gateway.appraisal import agent_pod, trainer_image
from concordat_gateway.challenges import Challenges
from concordat_gateway.contracts import Contracts
from concordat_gateway.refusals import Denied
from concordat_gateway.rights import Caller


class Observer(Protocol):
    """What the API server reports of a site's namespace. Each raises NotYet if it does not answer."""

    async def pod(self, namespace: str, name: str) -> Mapping[str, Any]:
        """Return a pod. Raises Denied if there is none, or the site does not let the gateway look."""

    async def job(self, namespace: str, name: str) -> Mapping[str, Any]:
        """Return a Job. Raises Denied likewise."""

    async def pods_of(self, namespace: str, job: str) -> Sequence[Mapping[str, Any]]:
        """Return the pods of a Job, oldest first. Raises Denied likewise."""


class Grants:
    """Gives grants to the sites of the hub's open rounds. `keys` are its public ones, `signing` the one in use."""

    def __init__(
        self,
        hub: str,
        signing: SigningKey,
        cache: Cache,
        contracts: Contracts,
        observer: Observer,
        clock: Clock,
        keys: Sequence[PublicKey] = (),
    ) -> None:
        self._hub, self._signing, self._cache = hub, signing, cache
        self._contracts, self._observer, self._clock = contracts, observer, clock
        self._keys = keys or (signing.public,)
        self._challenges = Challenges(clock)

    def challenge(self, caller: Caller, contract_digest: str) -> tuple[str, datetime]:
        """Return a nonce for the caller's evidence, and when it expires. Raises Denied, NotYet."""
        self._member(caller)
        self._contracts.round_of(contract_digest)
        return self._challenges.give(caller.namespace, contract_digest)

    async def grant(self, caller: Caller, evidence: bytes, training: bytes | None = None) -> bytes:
        """Return the signed grant for a site's evidence; `training` is the grant by which its Job was let run.

        Raises Refused.
        """
        membership, site = self._member(caller), caller.namespace
        contract_digest = _contract_of(evidence)
        round_ = self._contracts.round_of(contract_digest)
        signed, deadline = await self._contracts.of(round_)
        shown = _opened(evidence, site, signed)
        self._challenges.check(shown.nonce, site, contract_digest)
        now = self._clock.now().replace(microsecond=0)
        if now >= deadline:
            raise Denied(f"the submission deadline of round {round_.metadata.name} has passed")
        _demand_taking_part(membership, signed, site, now)
        found, contract = await self._found(caller, membership, shown, signed, training), signed.contract
        lasts = timedelta(seconds=contract.attestation.grant_seconds if shown.purpose is Purpose.TRAIN else 0)
        made = Grant(
            contract=signed.digest,
            round_uid=contract.round.uid,
            site=site,
            key=signed.keys[site].thumbprint,
            purpose=shown.purpose,
            nonce=nonce_digest(shown.nonce),
            evidence=shown.id,
            job_uid=shown.job_uid,
            not_before=now,
            not_after=min(deadline, now + lasts),
            found=found,
            update=shown.update,
            training=shown.training,
        )
        # Last: who asks again for what was not known yet shows the same evidence.
        self._challenges.take(shown.nonce, site, contract_digest)
        return sign(made.statement(), self._signing)

    async def _found(
        self, caller: Caller, membership: Membership, shown: Shown, signed: SignedContract, training: bytes | None
    ) -> dict[Evidence, Mapping[str, Any]]:
        """Return each kind of evidence with what was found. Raises Denied, NotYet."""
        contract, site = signed.contract, shown.site
        if shown.base != contract.base.digest:
            raise Denied(f"base package {shown.base} is staged, the contract's is {contract.base.digest}")
        found: dict[Evidence, Mapping[str, Any]] = {
            Evidence.SERVICE_ACCOUNT: {"name": str(caller)},
            Evidence.SITE_KEY: {"thumbprint": signed.keys[site].thumbprint},
            Evidence.SITE_POLICY: {"digest": shown.policy},
            Evidence.BASE_PACKAGE: {"digest": shown.base},
        }
        if caller.pod is None:
            _demand_no_pod(membership, contract, caller)
        else:
            seen = await self._observer.pod(site, caller.pod.name)
            found[Evidence.AGENT_POD] = agent_pod(seen, caller.pod.uid, membership.spec.agent_images)
        if shown.purpose is Purpose.SEND:
            held = self._training(training, shown, signed)
            if caller.pod is not None:
                found[Evidence.TRAINER_IMAGE] = await self._trained(shown, signed, held)
        return found

    def _member(self, caller: Caller) -> Membership:
        membership = self._cache.get(Membership, self._hub, caller.namespace)
        if membership is None:
            raise Denied(f"{caller.namespace} is no member")
        if membership.spec.suspended:
            raise Denied(f"the Membership of {caller.namespace} is suspended")
        return membership

    def _training(self, bundle: bytes | None, shown: Shown, signed: SignedContract) -> Grant:
        """Return the grant by which the Job was let run. Raises Denied if it is not of this gateway, or of another."""
        if bundle is None:
            raise Denied("the grant to train is missing")
        try:
            grant = open_grant(bundle, self._keys)
        except StatementError as error:
            raise Denied(f"the grant to train does not hold: {error}") from None
        for holds, otherwise in (
            (grant.id == shown.training, "is not the one that the evidence names"),
            (grant.purpose is Purpose.TRAIN, f"is to {grant.purpose}"),
            (grant.contract == signed.digest, f"is under contract {grant.contract}"),
            (grant.site == shown.site, f"is for site {grant.site}"),
            (grant.job_uid == shown.job_uid, f"is for Job {grant.job_uid}, the update is of Job {shown.job_uid}"),
        ):
            if not holds:
                raise Denied(f"the grant to train {otherwise}")
        return grant

    async def _trained(self, shown: Shown, signed: SignedContract, training: Grant) -> Mapping[str, Any]:
        """Return what is found of the pod that trained. Raises Denied, NotYet."""
        contract, site = signed.contract, shown.site
        name = update_name(contract.round.name, contract.round.uid)
        job, pods = await self._observer.job(site, name), await self._observer.pods_of(site, name)
        return trainer_image(job, pods, shown.job_uid, contract.image, training)


def _contract_of(evidence: bytes) -> str:
    try:
        return subject(unverified(evidence))[1]
    except StatementError as error:
        raise Denied(f"the evidence cannot be read: {error}") from None


def _opened(evidence: bytes, site: str, signed: SignedContract) -> Shown:
    key = signed.keys.get(site)
    if key is None:
        raise Denied(f"{site} is not in the contract of round {signed.contract.round.name}")
    try:
        shown = open_shown(evidence, key)
    except StatementError as error:
        raise Denied(f"the evidence does not hold: {error}") from None
    if shown.site != site:
        raise Denied(f"the evidence is of site {shown.site[:80]!r}, the token of {site}")
    return shown


def _demand_no_pod(membership: Membership, contract: Contract, caller: Caller) -> None:
    """Demand that neither the contract nor the hub's people ask for what only a pod of this cluster can show."""
    for who, least in (("contract", contract.attestation.least_tier), ("Membership", membership.spec.least_tier)):
        if least is Tier.PLATFORM_OBSERVED:
            raise Denied(f"the token of {caller} is of no pod of this cluster; its {who} demands {least}")


def _demand_taking_part(membership: Membership, signed: SignedContract, site: str, now: datetime) -> None:
    """Demand that the member is still one of the contract's federation, with the key that the contract names."""
    key, federation = signed.keys[site], signed.contract.federation
    if federation not in membership.spec.federations:
        raise Denied(f"{site} is no member of federation {federation}")
    for listed in membership.spec.keys:
        try:
            same = PublicKey.from_pem(listed.public_key) == key
        except StatementError:
            continue  # What is no key is no member's key; the operator says so in the Membership's status.
        if same and listed.counts(now):
            return
    raise Denied(f"the key {key.thumbprint} is not among those of the site's Membership that count now")
