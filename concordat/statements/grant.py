"""The round's credential: what a site shows of itself (evidence), and what the hub's gateway makes of it (grant).

Evidence is signed with the site's key over a nonce of the gateway, and used once. A grant is an attribute report (SCAI
v0.3) that the gateway signs, with its terms beside the attributes: one document, so that there is no grant without what
it rests on. The grant to train is for one Job and soon ends; the grant to send is for one update, by its digest.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from concordat.api.attestation import Evidence, Tier
from concordat.protocol.canonical import sha256_digest
from concordat.protocol.contract import Contract
from concordat.statements.dsse import open_bundle
from concordat.statements.errors import MalformedStatement
from concordat.statements.fields import (
    Readable,
    digest_set,
    get,
    predicate,
    rfc3339,
    sha256,
    statement,
    subject,
    time_at,
)
from concordat.statements.keys import PublicKey
from concordat.statements.names import EVIDENCE, GATEWAY, GRANT, SCAI


class Purpose(StrEnum):
    """What is granted."""

    TRAIN = "train"
    """To let one training Job run."""
    SEND = "send"
    """To send one update."""


@dataclass(frozen=True, kw_only=True)
class Shown:
    """What a site's agent shows of itself: the evidence."""

    contract: str
    """Digest of contract.json."""
    site: str
    purpose: Purpose
    nonce: str
    policy: str
    """Digest of the site's policy."""
    base: str
    """Digest of the base package that is staged."""
    job_uid: str
    """The training Job."""
    update: str | None = None
    """To send: digest of delta.safetensors."""
    training: str | None = None
    """To send: id of the grant by which the Job was let run."""
    id: str = field(default="", compare=False)
    """Of the statement that was read."""

    def statement(self) -> dict[str, Any]:
        """Return the statement to sign with the site's key."""
        content: dict[str, Any] = {
            "site": self.site,
            "purpose": self.purpose.value,
            "nonce": self.nonce,
            "policy": {"digest": digest_set(self.policy)},
            "base": {"digest": digest_set(self.base)},
            "jobUid": self.job_uid,
            **_sending(self.update, self.training),
        }
        return statement(Contract.FILE, self.contract, EVIDENCE, content)


def open_shown(bundle: bytes, key: PublicKey) -> Shown:
    """Verify evidence by the site's key. Raises StatementError: SignatureInvalid, MalformedStatement."""
    return read_shown(open_bundle(bundle, [key]))


def read_shown(signed: Readable) -> Shown:
    """Read evidence. Raises MalformedStatement."""
    content = predicate(signed, EVIDENCE)
    purpose = _purpose(content)
    update, training = _sent(content, purpose)
    return Shown(
        id=signed.id,
        contract=subject(signed)[1],
        site=get(content, "site", type_=str),
        purpose=purpose,
        nonce=get(content, "nonce", type_=str),
        policy=sha256(get(content, "policy", type_=dict), "policy"),
        base=sha256(get(content, "base", type_=dict), "base"),
        job_uid=get(content, "jobUid", type_=str),
        update=update,
        training=training,
    )


@dataclass(frozen=True, kw_only=True)
class Grant:
    """What the hub's gateway grants a site, and what it found of it before."""

    contract: str
    """Digest of contract.json."""
    round_uid: str
    site: str
    key: str
    """Thumbprint of the site's key."""
    purpose: Purpose
    nonce: str
    """Digest of the nonce that the evidence was signed over."""
    evidence: str
    """Id of the site's signed evidence."""
    job_uid: str
    not_before: datetime
    not_after: datetime
    """To train: until when the Job may begin. To send: the same as `not_before`, since it is for what is there."""
    found: Mapping[Evidence, Mapping[str, Any]]
    """Each kind of evidence with what was found."""
    update: str | None = None
    training: str | None = None
    id: str = field(default="", compare=False)
    """Of the statement that was read."""

    @property
    def tier(self) -> Tier:
        """How far the evidence can be believed: the highest tier all of whose evidence is there."""
        seen = Tier.PLATFORM_OBSERVED
        return seen if seen.required <= self.found.keys() else Tier.SELF_REPORTED

    def statement(self) -> dict[str, Any]:
        """Return the statement to sign with the gateway's key."""
        content = {
            "attributes": [
                {"attribute": kind.value, "conditions": dict(found)} for kind, found in sorted(self.found.items())
            ],
            "producer": {"uri": GATEWAY},
            GRANT: {
                "round": self.round_uid,
                "site": self.site,
                "key": self.key,
                "purpose": self.purpose.value,
                "nonce": {"digest": digest_set(self.nonce)},
                "evidence": {"digest": digest_set(self.evidence)},
                "jobUid": self.job_uid,
                "notBefore": rfc3339(self.not_before),
                "notAfter": rfc3339(self.not_after),
                **_sending(self.update, self.training),
            },
        }
        return statement(Contract.FILE, self.contract, SCAI, content)


def open_grant(bundle: bytes, gateway_keys: Collection[PublicKey]) -> Grant:
    """Verify a grant by the gateway's keys. Raises StatementError: SignatureInvalid, MalformedStatement."""
    return read_grant(open_bundle(bundle, gateway_keys))


def read_grant(signed: Readable) -> Grant:
    """Read a grant. Raises MalformedStatement, also for evidence that is there twice or of an unknown kind."""
    content = predicate(signed, SCAI)
    producer = get(content, "producer", "uri", type_=str)
    if producer != GATEWAY:
        raise MalformedStatement(f"producer is {producer[:80]!r}, expected {GATEWAY!r}")
    terms = get(content, GRANT, type_=dict)
    purpose = _purpose(terms)
    update, training = _sent(terms, purpose)
    return Grant(
        id=signed.id,
        contract=subject(signed)[1],
        round_uid=get(terms, "round", type_=str),
        site=get(terms, "site", type_=str),
        key=get(terms, "key", type_=str),
        purpose=purpose,
        nonce=sha256(get(terms, "nonce", type_=dict), "nonce"),
        evidence=sha256(get(terms, "evidence", type_=dict), "evidence"),
        job_uid=get(terms, "jobUid", type_=str),
        not_before=time_at(terms, "notBefore"),
        not_after=time_at(terms, "notAfter"),
        found=_found(get(content, "attributes", type_=list)),
        update=update,
        training=training,
    )


def nonce_digest(nonce: str) -> str:
    """Return by what a grant names the nonce."""
    return sha256_digest(nonce.encode())


def _found(attributes: list[Any]) -> dict[Evidence, Mapping[str, Any]]:
    found: dict[Evidence, Mapping[str, Any]] = {}
    for attribute in attributes:
        name = get(attribute, "attribute", type_=str)
        try:
            kind = Evidence(name)
        except ValueError:
            raise MalformedStatement(f"attributes: {name[:80]!r} is no kind of evidence") from None
        if kind in found:
            raise MalformedStatement(f"attributes: {kind} is there twice")
        found[kind] = get(attribute, "conditions", type_=dict)
    return found


def _purpose(content: dict[str, Any]) -> Purpose:
    name = get(content, "purpose", type_=str)
    try:
        return Purpose(name)
    except ValueError:
        raise MalformedStatement(f"purpose is {name[:80]!r}, expected train or send") from None


def _sending(update: str | None, training: str | None) -> dict[str, Any]:
    named = {"update": update, "training": training}
    return {name: {"digest": digest_set(digest)} for name, digest in named.items() if digest is not None}


def _sent(content: dict[str, Any], purpose: Purpose) -> tuple[str | None, str | None]:
    if purpose is Purpose.TRAIN:
        if named := sorted(content.keys() & {"update", "training"}):
            raise MalformedStatement(f"{' and '.join(named)} cannot be named before there is an update")
        return None, None
    update, training = (sha256(get(content, name, type_=dict), name) for name in ("update", "training"))
    return update, training
