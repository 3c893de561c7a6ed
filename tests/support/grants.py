"""Grants, and a gateway that gives one for whatever is shown to it, for tests and measurements of other things."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

from concordat.api.attestation import Evidence
from concordat.controller import Clock
from concordat.protocol.contract import Contract
from concordat.statements import SigningKey, sign, unverified
from concordat.statements.grant import Grant, Purpose, nonce_digest, read_shown

DIGEST = "sha256:" + "9" * 64
ALL: Mapping[Evidence, Mapping[str, Any]] = {kind: {} for kind in Evidence}


def grant(site: str, contract: Contract, digest: str, update: str, at: datetime, **changes: Any) -> Grant:
    """The grant to send an update, with all kinds of evidence."""
    entry = contract.site(site)
    made: dict[str, Any] = {
        "contract": digest,
        "round_uid": contract.round.uid,
        "site": site,
        "key": entry.key_thumbprint if entry is not None else "SHA256:" + "A" * 43,
        "purpose": Purpose.SEND,
        "nonce": nonce_digest("nonce"),
        "evidence": DIGEST,
        "job_uid": "job",
        "not_before": at,
        "not_after": at,
        "found": ALL,
        "update": update,
        "training": DIGEST,
    }
    return Grant(**{**made, **changes})


class TrustingGateway:
    """Believes what it is shown. `round_of` knows the uid of a contract's round by the contract's digest.

    `refusal` is raised instead of the next grants, `changes` are made to them.
    """

    def __init__(self, key: SigningKey, clock: Clock, round_of: Callable[[str], str]) -> None:
        self._key, self._clock, self._round_of = key, clock, round_of
        self.refusal: Exception | None = None
        self.changes: dict[str, Any] = {}
        self.given: list[bytes] = []

    async def challenge(self, contract_digest: str) -> str:
        """A nonce, each time another."""
        return f"nonce-{len(self.given)}-{contract_digest[-8:]}"

    async def grant(self, evidence: bytes, training: bytes | None = None) -> bytes:
        """A grant for it."""
        if self.refusal is not None:
            raise self.refusal
        shown, signed = read_shown(unverified(evidence)), unverified(evidence)
        now = self._clock.now().replace(microsecond=0)
        lasts = timedelta(minutes=30) if shown.purpose is Purpose.TRAIN else timedelta()
        made: dict[str, Any] = {
            "contract": shown.contract,
            "round_uid": self._round_of(shown.contract),
            "site": shown.site,
            "key": _keyid(evidence),
            "purpose": shown.purpose,
            "nonce": nonce_digest(shown.nonce),
            "evidence": signed.id,
            "job_uid": shown.job_uid,
            "not_before": now,
            "not_after": now + lasts,
            "found": ALL,
            "update": shown.update,
            "training": shown.training,
        }
        self.given.append(sign(Grant(**{**made, **self.changes}).statement(), self._key))
        return self.given[-1]


def _keyid(bundle: bytes) -> str:
    return str(json.loads(bundle)["dsseEnvelope"]["signatures"][0]["keyid"])
