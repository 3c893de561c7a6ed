"""A round as hub and sites make it, for the tests of the aggregator Job."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from concordat.aggregation import aggregate, apply_delta
from concordat.api.aggregation_rules import PreAggregation, Rule
from concordat.api.round import Factor
from concordat.api.types import ArtifactRef
from concordat.artifacts import RegistryStore
from concordat.lora import orthonormal, read_adapter
from concordat.protocol import artifact_types as types
from concordat.protocol.aggregation import AggregationReport, AggregationRequest
from concordat.protocol.canonical import canonical, sha256_digest
from concordat.protocol.contract import Contract
from concordat.protocol.locations import round_repository, site_repository
from concordat.statements import SigningKey, sign, unverified
from concordat.statements.contract import contract_statement
from concordat.statements.provenance import LocalUpdate, update_provenance
from concordat.statements.summary import consent
from concordat.tensors import Tensors, write_tensors
from concordat_aggregator.job import main
from tests.apiserver.registry.server import Registry
from tests.support.contracts import contract
from tests.support.grants import grant

A, B = "vit.layer.0.lora_A.weight", "vit.layer.0.lora_B.weight"
A2, B2 = "vit.layer.1.lora_A.weight", "vit.layer.1.lora_B.weight"
CONFIG = b'{"r": 2, "lora_alpha": 2, "peft_type": "LORA"}'
SITES = ("site-a", "site-b", "site-c", "site-d", "site-e")
GATEWAY = SigningKey.generate()
NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
# With these A the whitened coordinates are B itself, to the last bit.
PARENT: Tensors = {
    A: np.eye(2, 4, dtype=np.float32),
    A2: np.eye(2, 4, 1, dtype=np.float32),
    B: np.zeros((4, 2), np.float32),
    B2: np.ones((4, 2), np.float32),
}


def learned(number: int) -> Tensors:
    """An honest update: small, and different for every site."""
    random = np.random.default_rng(number)
    return {name: random.normal(scale=0.1, size=(4, 2)).astype(np.float32) for name in (B, B2)}


HONEST = {site: learned(number) for number, site in enumerate(SITES)}


@dataclass
class Federation:
    """Hub and sites of one round; everything is pushed as operator and agents do."""

    url: str
    uid: str
    hub: SigningKey = field(default_factory=SigningKey.generate)
    keys: dict[str, SigningKey] = field(default_factory=lambda: {site: SigningKey.generate() for site in SITES})
    contract: Contract = field(init=False)
    digest: str = field(init=False)

    def __enter__(self) -> Federation:
        self._runner = asyncio.Runner()
        self._store = RegistryStore(self.url)
        self._runner.run(self._store.__aenter__())
        return self

    def __exit__(self, *raised: object) -> None:
        self._runner.run(self._store.__aexit__(None, None, None))
        self._runner.close()

    def push(self, repository: str, kind: str, files: dict[str, bytes]) -> ArtifactRef:
        return self._runner.run(self._store.push(repository, kind, files))

    def read(self, ref: dict[str, str], name: str) -> bytes:
        return self._runner.run(self._store.read(ArtifactRef.model_validate(ref), name))

    def open(self, **changes: Any) -> ArtifactRef:
        """Sign and push the contract."""
        adapter = {types.ADAPTER_FILE: write_tensors(PARENT), types.ADAPTER_CONFIG_FILE: CONFIG}
        fields = {
            "round": {"name": "r1", "namespace": "concordat", "uid": self.uid, "generation": 1},
            "base": self.push("digits/base", types.BASE_PACKAGE, {"package.json": b"{}"}),
            "parent": self.push("digits/adapters", types.ADAPTER, adapter),
            "sites": [
                {"name": site, "keyThumbprint": key.public.thumbprint, "publicKey": key.public.to_pem()}
                for site, key in self.keys.items()
            ],
            "quorum": 3,
            "screening": {"clipNorm": "1"},
            "aggregation": {"rule": "TrimmedMean", "preAggregation": "NNM", "maxFaultySites": 1},
        }
        self.contract = contract(**{**fields, **changes})
        document = canonical(self.contract.wire())
        self.digest = sha256_digest(document)
        statement = contract_statement(self.contract.wire(), self.digest)
        files = {Contract.FILE: document, Contract.STATEMENT_FILE: sign(statement, self.hub)}
        return self.push(round_repository("digits", self.uid), types.CONTRACT, files)

    def slot(self, site: str) -> str:
        return site_repository("digits", self.uid, site)

    def statement(self, site: str, update_digest: str, /, **changes: Any) -> dict[str, Any]:
        """An update statement as the agent makes it."""
        made = {"steps": 10, "examples": 100, "norm": "0.1", "clipped": False, "finished": NOW}
        about: dict[str, Any] = {name: changes.pop(name) for name in ("base", "parent") if name in changes}
        contract = self.contract.model_copy(update=about)
        if "round_uid" in changes:
            round_ = contract.round.model_copy(update={"uid": changes.pop("round_uid")})
            contract = contract.model_copy(update={"round": round_})
        digest, site = changes.pop("contract_digest", self.digest), changes.pop("site", site)
        update_digest = changes.pop("update_digest", update_digest)
        named, granted = unverified(self.consent(site)).id, unverified(self.grant(site, update_digest)).id
        fields = {"sha256": update_digest, "consent_id": named, "grant_id": granted, **made, **changes}
        return update_provenance(site, contract, digest, LocalUpdate(**fields)).statement()

    def consent(self, site: str) -> bytes:
        """The consent as the agent makes it."""
        made = consent(
            site=site,
            round_uid=self.uid,
            contract_digest=self.digest,
            policy_digest=sha256_digest(b"policy"),
            passed=True,
            reason="Consented",
            at=NOW,
        )
        return sign(made.statement(), self.keys[site])

    def grant(self, site: str, update_digest: str, **changes: Any) -> bytes:
        """The grant as the gateway gives it."""
        made = grant(site, self.contract, self.digest, update_digest, NOW, **changes)
        return sign(made.statement(), GATEWAY)

    def submit(
        self,
        site: str,
        data: bytes,
        /,
        *,
        bundle: bytes | None = None,
        granted: bytes | None = None,
        key: SigningKey | None = None,
        files: dict[str, bytes] | None = None,
        **changes: Any,
    ) -> dict[str, Any]:
        """Push an update and its statement; returns the entry of the request."""
        if bundle is None:
            bundle = sign(self.statement(site, sha256_digest(data), **changes), key or self.keys[site])
        artifact = self.push(self.slot(site), types.UPDATE, files or {types.DELTA_FILE: data})
        if granted is None:
            granted = self.grant(site, sha256_digest(data))
        beside = {types.GRANT_FILE: granted} if granted else {}
        statement = self.push(self.slot(site), types.STATEMENT, {types.STATEMENT_FILE: bundle, **beside})
        consented = self.push(self.slot(site), types.STATEMENT, {types.STATEMENT_FILE: self.consent(site)})
        return {
            "site": site,
            "artifact": artifact.wire(),
            "statement": statement.wire(),
            "consent": consented.wire(),
        }

    def honest(self, *sites: str) -> list[dict[str, Any]]:
        return [self.submit(site, write_tensors(HONEST[site])) for site in sites]

    def request(self, contract: ArtifactRef, submissions: list[dict[str, Any]], /, **changes: Any) -> str:
        document = {
            "schema": "concordat.dev/aggregation-request/v1",
            "contract": contract.wire(),
            "contractDigest": self.digest,
            "contractKey": self.hub.public.to_pem(),
            "gatewayKeys": [GATEWAY.public.to_pem()],
            "submissions": submissions,
            **changes,
        }
        data = json.dumps(document).encode()
        ref = self.push(
            round_repository("digits", self.uid), types.AGGREGATION_REQUEST, {AggregationRequest.FILE: data}
        )
        return f"{ref.repository}@{ref.digest}"

    def arguments(self, request: str, folder: Path) -> list[str]:
        where = [
            "--registry",
            self.url,
            "--request",
            request,
            "--work",
            str(folder / "work"),
            "--checked",
            str(folder / "work" / "checked"),
        ]
        return [*where, "--result", str(folder / "result")]

    def aggregate(self, request: str, folder: Path) -> dict[str, Any]:
        """Run the Job; returns its report."""
        assert main(self.arguments(request, folder)) == 0
        result = (folder / "result").read_text()
        assert result.endswith("\n")
        assert result.count("\n") == 1
        references = json.loads(result)
        found = AggregationReport.from_bytes(self.read(references["report"], AggregationReport.FILE))
        report = found.model_dump(mode="json", by_alias=True)
        assert references.get("adapter") == report["adapter"]
        return report

    def expected(self, *sites: str, faults: int = 1) -> bytes:
        """The adapter that these sites' honest updates make by the contract's rule."""
        found = aggregate([HONEST[site] for site in sites], Rule.TRIMMED_MEAN, faults, pre=PreAggregation.NNM)
        moved = read_adapter(apply_delta(PARENT, found.tensors), CONFIG)
        return write_tensors(orthonormal(moved, Factor.B))


@pytest.fixture
def federation(registry: Registry, request: pytest.FixtureRequest) -> Iterator[Federation]:
    """A round of the test's own."""
    with Federation(registry.url, sha256_digest(request.node.name.encode())[7:39]) as made:
        yield made


@dataclass
class Running:
    """A round in which four honest sites have submitted; a test adds the fifth."""

    federation: Federation
    contract: ArtifactRef
    honest: list[dict[str, Any]]

    def with_site_e(self, entry: dict[str, Any]) -> str:
        """The request."""
        return self.federation.request(self.contract, [*self.honest, entry])

    def only_site_e_is_out(self, entry: dict[str, Any], folder: Path, reason: str) -> dict[str, Any]:
        """Run the Job and check that all but the fifth site's update is aggregated; returns the fifth verdict."""
        report = self.federation.aggregate(self.with_site_e(entry), folder)
        assert [(v["site"], v["reason"]) for v in report["verdicts"]] == [
            *((site, "Verified") for site in SITES[:4]),
            ("site-e", reason),
        ]
        last: dict[str, Any] = report["verdicts"][-1]
        assert not last["passed"]
        assert last["message"].isprintable()
        assert last["message"].isascii()
        assert 0 < len(last["message"]) <= 500
        assert last["updateSha256"].startswith("sha256:")
        assert report["aggregated"] == list(SITES[:4])
        # A rejection for what is in the update uses up the fault budget.
        faults = 0 if reason in ("NormExceeded", "Duplicate") else 1
        assert report["rejected"] == 1 - faults
        expected = self.federation.expected(*SITES[:4], faults=faults)
        assert self.federation.read(report["adapter"], types.ADAPTER_FILE) == expected
        return last


@pytest.fixture(scope="module")
def running(registry: Registry) -> Iterator[Running]:
    with Federation(registry.url, "0123456789abcdef") as federation:
        contract = federation.open()
        yield Running(federation, contract, federation.honest(*SITES[:4]))
