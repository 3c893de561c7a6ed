"""A contract, of which a test says only what it is about."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from concordat.api.types import ArtifactRef
from concordat.protocol.contract import Contract

IMAGE = "registry/learning@sha256:" + "1" * 64
REF = ArtifactRef(repository="digits/adapters", digest="sha256:" + "a" * 64)
ROUND = {"name": "r1", "namespace": "concordat", "uid": "0123abcd-1"}
OPENS = datetime(2026, 11, 24, 12, tzinfo=UTC)


def contract(**changes: Any) -> Contract:
    """A contract with one site; `changes` are members by their names on the wire, or `opens` to move all times."""
    opens = changes.get("opens", OPENS)
    fields: dict[str, Any] = {
        "federation": "digits",
        "round": {**ROUND, "generation": 1},
        "base": REF,
        "parent": REF,
        "parentRelease": {"name": "digits-0", "sequence": 0},
        "sites": [{"name": "site-a", "keyThumbprint": "SHA256:" + "A" * 43, "publicKey": "pem"}],
        "quorum": 1,
        "budget": {},
        "recipe": {"image": IMAGE, "trainFactor": "B"},
        "gates": {},
        "attestation": {},
        "screening": {},
        "aggregation": {},
        "evaluation": {},
        "opens": opens,
        "consentDeadline": opens + timedelta(minutes=5),
        "submissionDeadline": opens + timedelta(hours=1),
    }
    return Contract.model_validate({**fields, **changes})
