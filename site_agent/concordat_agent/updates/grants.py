"""The grants that an update needs: one before its Job runs, one before it is sent. Kept on the agent's own volume.

What was granted is used again after a crash, so that a repeated step sends the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ConfigDict

from concordat.api import Update
from concordat.api.types import Model, Sha256, Time
from concordat.artifacts import ArtifactError
from concordat.statements import StatementError, sign
from concordat.statements.contract import SignedContract
from concordat.statements.grant import Grant, Purpose, Shown, nonce_digest, open_grant
from concordat_agent.agent import Agent
from concordat_agent.gateway import GrantRefused, StaleNonce

_TRIES = 2
"""A gateway that was restarted takes none of the nonces that it gave out before."""


class ToTrain(Model):
    """The grant by which the agent let an Update's Job run."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    job_uid: str
    until: Time
    bundle: str


class ToSend(Model):
    """The grant by which the agent sends an update."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    update: Sha256
    bundle: str


async def to_train(agent: Agent, update: Update, signed: SignedContract, job: Mapping[str, Any]) -> None:
    """Have a grant for this Job to begin now. Raises GrantRefused, ArtifactError, OSError."""
    uid = job["metadata"]["uid"]
    held = agent.notes.of(update, ToTrain)
    if held is not None and held.job_uid == uid and agent.clock.now() < held.until:
        return
    bundle, grant = await _ask(agent, signed, uid)
    if grant.not_after <= agent.clock.now():
        raise GrantRefused(f"the grant to train ended at {grant.not_after:%H:%M:%SZ}: see the clocks of hub and site")
    agent.notes.keep(update, ToTrain(job_uid=uid, until=grant.not_after, bundle=bundle.decode()))


async def to_send(
    agent: Agent, update: Update, signed: SignedContract, job: Mapping[str, Any], digest: str
) -> tuple[bytes, str]:
    """Return the grant to send the update of that digest, and its id. Raises GrantRefused, ArtifactError, OSError."""
    held, trained = agent.notes.of(update, ToSend), agent.notes.of(update, ToTrain)
    if held is not None and held.update == digest:
        bundle = held.bundle.encode()
        return bundle, _opened(agent, bundle).id
    if trained is None:
        raise GrantRefused("there is no grant by which the Job was let run")
    bundle, grant = await _ask(agent, signed, job["metadata"]["uid"], digest, trained.bundle.encode())
    agent.notes.keep(update, ToSend(update=digest, bundle=bundle.decode()))
    return bundle, grant.id


async def _ask(
    agent: Agent, signed: SignedContract, job_uid: str, update: str | None = None, training: bytes | None = None
) -> tuple[bytes, Grant]:
    """Show evidence over a fresh nonce; return the grant, which is for what was asked."""
    key = agent.signer.keys.choose(signed.keys[agent.site].thumbprint)
    for _ in range(_TRIES):
        nonce = await agent.gateway.challenge(signed.digest)
        shown = Shown(
            contract=signed.digest,
            site=agent.site,
            purpose=Purpose.TRAIN if training is None else Purpose.SEND,
            nonce=nonce,
            policy=agent.policy.digest,
            base=signed.contract.base.digest,
            job_uid=job_uid,
            update=update,
            training=_opened(agent, training).id if training is not None else None,
        )
        try:
            bundle = await agent.gateway.grant(sign(shown.statement(), key), training)
        except StaleNonce as stale:
            said = str(stale)
            continue
        grant = _opened(agent, bundle)
        _demand_as_asked(grant, shown, key.public.thumbprint)
        return bundle, grant
    raise ArtifactError(f"the hub's gateway takes none of its own nonces: {said}")


def _opened(agent: Agent, bundle: bytes) -> Grant:
    try:
        return open_grant(bundle, agent.trust.gateway_keys)
    except StatementError as error:
        raise GrantRefused(f"what the gateway gave does not hold, so nobody would accept it: {error}") from None


def _demand_as_asked(grant: Grant, shown: Shown, key: str) -> None:
    """Refuse a grant that is not what was asked for: everybody else would refuse the update with it."""
    for name, found, wanted in (
        ("contract", grant.contract, shown.contract),
        ("site", grant.site, shown.site),
        ("key", grant.key, key),
        ("purpose", grant.purpose, shown.purpose),
        ("nonce", grant.nonce, nonce_digest(shown.nonce)),
        ("Job", grant.job_uid, shown.job_uid),
        ("update", grant.update, shown.update),
    ):
        if found != wanted:
            raise GrantRefused(f"the gateway's grant is for {name} {found}, asked was {wanted}")
