"""A whole round as signed statements: hub, sites and evaluator in one place, and a hand that can change any of it."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from concordat.api.types import ArtifactRef
from concordat.lineage import Lineage, Trust, bundle, verify_candidate, verify_release
from concordat.protocol.aggregation import ReportedUpdate
from concordat.protocol.canonical import canonical, sha256_digest
from concordat.protocol.contract import Contract
from concordat.statements import SigningKey, names, sign, unverified
from concordat.statements.closure import Closure
from concordat.statements.contract import contract_statement
from concordat.statements.provenance import Dependency, LocalUpdate, Provenance, update_provenance
from concordat.statements.release import ReleaseStatement
from concordat.statements.summary import Summary, consent, levels, verdict
from tests.support.contracts import contract
from tests.support.grants import grant

AT = datetime(2026, 11, 24, 12, tzinfo=UTC)
BASE = ArtifactRef(repository="digits/base", digest="sha256:" + "b" * 64)
PARENT = ArtifactRef(repository="digits/adapters", digest="sha256:" + "d" * 64)
ADAPTER = "sha256:" + "e" * 64
UID = "0123abcd-1"
HUB, AGGREGATOR, GATEWAY, EVALUATOR = "hub", "aggregator", "gateway", "evaluator"
_KEYS: dict[str, SigningKey] = {}

Change = Callable[[dict[str, Any]], None]


def key_of(name: str) -> SigningKey:
    """The key of a party; made once, because making keys is slow."""
    if name not in _KEYS:
        _KEYS[name] = SigningKey.generate()
    return _KEYS[name]


class Chain:
    """The statements of one round. What is changed by `change` is signed as changed, and named so by what follows."""

    def __init__(
        self,
        *,
        accepted: tuple[str, ...] = ("site-a", "site-b", "site-c"),
        rejected: tuple[str, ...] = ("site-d",),
        missing: tuple[str, ...] = ("site-e",),
        contract: Mapping[str, Any] | None = None,
        change: Mapping[str, Change] | None = None,
        signers: Mapping[str, str] | None = None,
        **facts: Any,
    ) -> None:
        self._change, self._signers = change or {}, signers or {}
        self.lines: dict[str, bytes] = {}
        self.ids: dict[str, str] = {}
        self.accepted, self.rejected, self.missing = accepted, rejected, missing
        self.sequence = facts.get("sequence", 1)
        document = self._contract(sorted({*accepted, *rejected, *missing}), contract or {})
        self.contract = Contract.model_validate(document)
        self.digest = sha256_digest(canonical(document))
        self._add("contract", contract_statement(document, self.digest), HUB)
        for site in accepted:
            self._site(site)
        for site in (*accepted, *rejected):
            self._verdict(site)
        self._closure()
        self._aggregation(facts.get("aggregated", accepted), document["aggregation"]["rule"])
        self._evaluation()
        self._release()

    def _add(self, name: str, statement: dict[str, Any], signer: str) -> None:
        statement = copy.deepcopy(statement)
        if name in self._change:
            self._change[name](statement)
        self.lines[name] = sign(statement, key_of(self._signers.get(name, signer)))
        self.ids[name] = unverified(self.lines[name]).id

    def _contract(self, sites: list[str], changes: Mapping[str, Any]) -> dict[str, Any]:
        fields = {
            "base": BASE,
            "parent": PARENT,
            "sites": [entry(site) for site in sites],
            "quorum": min(3, len(self.accepted)) or 1,
            "aggregation": {"rule": "Mean", "preAggregation": "None", "maxFaultySites": 0},
        }
        return contract(**{**fields, **changes}).wire()

    def _site(self, site: str) -> None:
        consented = consent(
            site=site,
            round_uid=UID,
            contract_digest=self.digest,
            policy_digest=sha256_digest(b"policy"),
            passed=True,
            reason="Consented",
            at=AT,
        )
        self._add(f"consent {site}", consented.statement(), site)
        granted = grant(site, self.contract, self.digest, sha256_digest(site.encode()), AT)
        self._add(f"grant {site}", granted.statement(), GATEWAY)
        update = LocalUpdate(
            sha256=sha256_digest(site.encode()),
            consent_id=self.ids[f"consent {site}"],
            grant_id=self.ids[f"grant {site}"],
            steps=200,
            examples=280,
            norm="1.5",
            clipped=False,
            finished=AT,
        )
        provenance = update_provenance(site, self.contract, self.digest, update)
        self._add(f"update {site}", provenance.statement(), site)

    def _verdict(self, site: str) -> None:
        passed = site in self.accepted
        update = ReportedUpdate(
            site=site,
            artifact=PARENT,
            statement=PARENT,
            passed=passed,
            reason="Verified" if passed else "NotFinite",
            message="",
            norm="1.5" if passed else None,
            measurements={"cosine": "-0.5"},
            update_sha256=sha256_digest(site.encode()),
            statement_id=self.ids.get(f"update {site}"),
        )
        self._add(f"verdict {site}", verdict(UID, self.digest, update, AT).statement(), AGGREGATOR)

    def _closure(self) -> None:
        closure = Closure(
            contract=self.digest,
            verdicts=tuple(sorted(id_ for name, id_ in self.ids.items() if name.startswith("verdict"))),
            accepted=len(self.accepted),
            rejected=len(self.rejected),
            missing=self.missing,
            closed=AT,
        )
        self._add("closure", closure.statement(), AGGREGATOR)

    def _aggregation(self, sites: tuple[str, ...], rule: str) -> None:
        aggregation = Provenance(
            file="adapter",
            subject=ADAPTER,
            build_type=names.AGGREGATION,
            builder=names.AGGREGATOR,
            parameters={
                "round": UID,
                "contract": self.digest,
                "rule": rule,
                "preAggregation": "None",
                "lora": "Alternating",
                "rejected": 0,
            },
            dependencies=(
                Dependency.artifact("base", BASE),
                Dependency.artifact("parent", PARENT),
                Dependency("contract", self.digest),
                Dependency("closure", self.ids["closure"]),
                *(Dependency("update", self.ids.get(f"update {s}", sha256_digest(s.encode()))) for s in sites),
            ),
            finished=AT,
        )
        self._add("aggregation", aggregation.statement(), AGGREGATOR)

    def _evaluation(self) -> None:
        evaluation = Summary(
            file="adapter",
            subject=ADAPTER,
            verifier=names.agent_id(EVALUATOR),
            resource=names.release_resource("digits", self.sequence),
            policy=sha256_digest(b"policy"),
            inputs=(self.ids["aggregation"],),
            levels=levels(True, names.EVALUATED),
            site=EVALUATOR,
            reason="Approved",
            at=AT,
            details={"figures": {"examples": 359}},
        )
        self._add("evaluation", evaluation.statement(), EVALUATOR)

    def _release(self) -> None:
        release = ReleaseStatement(
            subject=ADAPTER,
            federation="digits",
            sequence=self.sequence,
            supersedes=PARENT.digest,
            contract=self.digest,
            provenance=self.ids["aggregation"],
            evaluation=self.ids["evaluation"],
        )
        self._add("release", release.statement(), HUB)

    def signer(self, name: str) -> str:
        """Who signs the statement of that name."""
        kind, _, site = name.partition(" ")
        return {"contract": HUB, "release": HUB, "grant": GATEWAY, "evaluation": EVALUATOR}.get(
            kind, site if kind in ("consent", "update") else AGGREGATOR
        )

    def bundle(self, **lines: bytes | None) -> bytes:
        """All lines; a keyword replaces one, or leaves it out."""
        return bundle(line for line in {**self.lines, **lines}.values() if line is not None)

    def candidate(self, lines: bytes | None = None, **facts: str) -> Lineage:
        """What the evaluator finds."""
        data = lines if lines is not None else self.bundle(evaluation=None, release=None)
        return verify_candidate(data, trust(), **{"adapter": ADAPTER, "contract_digest": self.digest, **facts})

    def verify(self, lines: bytes | None = None, *, sequence: int | None = None, **facts: str) -> Lineage:
        """What a site finds."""
        data = lines if lines is not None else self.bundle()
        return verify_release(
            data,
            trust(),
            sequence=self.sequence if sequence is None else sequence,
            **{"adapter": ADAPTER, "contract_digest": self.digest, **facts},
        )


def entry(site: str) -> dict[str, str]:
    """A site in a contract."""
    public = key_of(site).public
    return {"name": site, "keyThumbprint": public.thumbprint, "publicKey": public.to_pem()}


def trust() -> Trust:
    """What a site has pinned."""
    return Trust(
        contract_keys=(key_of(HUB).public,),
        aggregation_keys=(key_of(AGGREGATOR).public,),
        gateway_keys=(key_of(GATEWAY).public,),
        evaluators={EVALUATOR: (key_of(EVALUATOR).public,)},
    )


class Make:
    """Chains, and their parts."""

    chain = Chain
    plain = Chain()
    """The chain nobody changed."""
    key_of = staticmethod(key_of)
    entry = staticmethod(entry)
    trust = staticmethod(trust)
    at, base, parent, adapter = AT, BASE, PARENT, ADAPTER

    def statement(self, line: bytes) -> dict[str, Any]:
        """A copy of a line's statement, free to be changed."""
        content: dict[str, Any] = json.loads(json.dumps(unverified(line).statement))
        return content

    def signed(self, statement: dict[str, Any], signer: str) -> bytes:
        """A line."""
        return sign(statement, key_of(signer))
