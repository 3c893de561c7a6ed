"""Objects of a round as the API server returns them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from concordat.api import FederationRound, Membership, Release, ReleaseChannel, Role, Site, Update
from concordat.api.site import AcceptedKey
from concordat.protocol.contract import Contract
from concordat.statements import SigningKey
from concordat.statements.enrolment import enrolment
from concordat_operator.members.plan import Member
from tests.support.contracts import contract

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
DIGEST = "sha256:" + "a" * 64
REF = {"repository": "digits/x", "digest": DIGEST}
IMAGE = "registry.local/learning@" + DIGEST
SIGNER = SigningKey.generate()
KEY = SIGNER.public
SITES = ("site-a", "site-b", "site-c", "site-d", "site-e")


class Make:
    """Builders with the defaults of an ordinary round of five sites, quorum three."""

    now = NOW
    image = IMAGE
    key = KEY
    ref = REF

    def conditions(self, **status: str) -> list[dict[str, Any]]:
        """`Ready="True"`, or `Trained="False:OOMKilled"` with a reason."""
        found = []
        for type_, value in status.items():
            word, _, reason = value.partition(":")
            found.append(
                {
                    "type": type_,
                    "status": word,
                    "reason": reason or "InProgress",
                    "message": f"{type_} is {word}.",
                    "lastTransitionTime": NOW,
                }
            )
        return found

    def round(
        self, status: dict[str, Any] | None = None, metadata: dict[str, Any] | None = None, **spec: Any
    ) -> FederationRound:
        """A FederationRound with its finalizer."""
        return FederationRound.model_validate(
            {
                "metadata": {
                    "name": "r1",
                    "namespace": "concordat",
                    "uid": "0123abcd-1",
                    "generation": 1,
                    "finalizers": ["concordat.dev/round-cleanup"],
                    **(metadata or {}),
                },
                "spec": {"federation": "digits", "parent": {"channelRef": {"name": "stable"}}, **spec},
                "status": status or {},
            }
        )

    def site(
        self,
        name: str,
        conditions: Mapping[str, str] | None = None,
        *,
        role: str = "Trainer",
        labels: Mapping[str, str] | None = None,
    ) -> Site:
        """A Site that is accepted and present, unless its conditions say otherwise."""
        shown = {"Accepted": "True", "Ready": "True", **(conditions or {})}
        return Site.model_validate(
            {
                "metadata": {"name": name, "namespace": name, "uid": f"uid-of-{name}", "labels": labels or {}},
                "spec": {
                    "role": role,
                    "federations": [{"name": "digits", "dataClaim": "data"}],
                    "workspaceClaim": "workspace",
                    "judgingImage": IMAGE,
                    **({"channel": "stable"} if role == "Trainer" else {}),
                },
                "status": {
                    "conditions": self.conditions(**shown),
                    "agent": {"key": self.shown(name), "policyDigest": DIGEST, "version": "1"},
                    "acceptedKey": {"thumbprint": KEY.thumbprint, "publicKey": KEY.to_pem()},
                },
            }
        )

    def sites(self) -> list[Site]:
        """Five trainers and an evaluator."""
        return [*(self.site(name) for name in SITES), self.site("evaluator", role="Evaluator")]

    def shown(self, name: str, key: SigningKey = SIGNER) -> dict[str, str]:
        """What the agent of a site shows of a key that it holds."""
        proof = enrolment(key.public, name, f"uid-of-{name}", key).decode()
        return {"publicKey": key.public.to_pem(), "proof": proof}

    def membership(self, name: str, *, role: str = "Trainer", **spec: Any) -> Membership:
        """The Membership of a site with the key that all sites here have."""
        keys = [{"publicKey": KEY.to_pem()}]
        return Membership.model_validate(
            {
                "metadata": {"name": name, "namespace": "concordat", "generation": 1},
                "spec": {"role": role, "federations": ["digits"], "keys": keys, **spec},
            }
        )

    def members(self, sites: Iterable[Site] | None = None, *federations: str) -> dict[str, Member]:
        """The sites as members of the federation `digits`; by default all five and the evaluator."""
        key = AcceptedKey(thumbprint=KEY.thumbprint, public_key=KEY.to_pem())
        of = frozenset(federations or ("digits",))
        found = [(s.metadata.name, Role(s.spec.role)) for s in (self.sites() if sites is None else sites)]
        return {name: Member(name, role, of, key) for name, role in found}

    def release(
        self, name: str = "digits-0", sequence: int = 0, namespace: str = "concordat", **conditions: str
    ) -> Release:
        """A Release of the hub; approved unless said otherwise."""
        shown = conditions or {"Approved": "True:Genesis"}
        made = {"roundRef": {"name": "r1", "namespace": "concordat", "uid": "0123abcd-1"}} if sequence else {}
        return Release.model_validate(
            {
                "metadata": {"name": name, "namespace": namespace, "labels": {}},
                "spec": {"federation": "digits", "sequence": sequence, "base": REF, "adapter": REF, **made},
                "status": {"conditions": self.conditions(**shown)},
            }
        )

    def channel(self, points_to: str | None = "digits-0", **spec: Any) -> ReleaseChannel:
        """The channel `stable`."""
        return ReleaseChannel.model_validate(
            {
                "metadata": {"name": "stable", "namespace": "concordat", "generation": 1},
                "spec": {"federation": "digits", **(spec or {"follow": "Approved"})},
                "status": {"release": {"name": points_to}} if points_to else {},
            }
        )

    def contract(self, *names: str, **changes: Any) -> Contract:
        """A contract with those sites; by default all five."""
        entry = {"keyThumbprint": KEY.thumbprint, "publicKey": KEY.to_pem()}
        sites = [{"name": name, **entry} for name in names or SITES]
        fields = {
            "base": REF,
            "parent": REF,
            "sites": sites,
            "quorum": 3,
            "recipe": {"image": IMAGE, "trainFactor": "B"},
            "opens": NOW,
        }
        return contract(**{**fields, **changes})

    def update(self, site: str, conditions: Mapping[str, str] | None = None, *, deleted: bool = False) -> Update:
        """A site's Update with those conditions."""
        return Update.model_validate(
            {
                "metadata": {
                    "name": "r1-0123abcd",
                    "namespace": site,
                    "deletionTimestamp": NOW if deleted else None,
                },
                "spec": {
                    "federation": "digits",
                    "roundRef": {"name": "r1", "namespace": "concordat", "uid": "0123abcd-1"},
                    "site": site,
                    "contract": REF,
                    "contractDigest": DIGEST,
                    "consentDeadline": NOW + timedelta(minutes=5),
                    "submissionDeadline": NOW + timedelta(hours=1),
                },
                "status": {"conditions": self.conditions(**(conditions or {}))},
            }
        )

    def job(self, end: str = "") -> dict[str, Any]:
        """A Job: running, `Complete`, or failed with that reason."""
        status: dict[str, Any] = {}
        if end == "Complete":
            ended = {"type": "Complete", "status": "True"}
            status = {"conditions": [ended], "completionTime": "2026-11-24T12:10:00Z"}
        elif end:
            status = {"conditions": [{"type": "Failed", "status": "True", "reason": end}]}
        return {"metadata": {"name": "r1-0123abcd", "namespace": "concordat", "uid": "j"}, "status": status}
