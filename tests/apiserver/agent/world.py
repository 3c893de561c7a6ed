"""One site with its agent's reconcilers, a real API server and a real registry; the test plays hub and trainer."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from concordat.api import Condition, ConditionType, Release, Resource, Site, Update, find
from concordat.api.aggregation_rules import PreAggregation, Rule
from concordat.api.round import LoraMode
from concordat.api.types import ArtifactRef
from concordat.artifacts import RegistryStore
from concordat.controller import JOB, Cache, Cluster, FixedClock
from concordat.lineage import Trust, bundle
from concordat.protocol import artifact_types as types
from concordat.protocol.aggregation import AggregationReport, ReportedUpdate
from concordat.protocol.canonical import canonical, sha256_digest
from concordat.protocol.contract import Contract
from concordat.statements import SigningKey, names, sign, unverified
from concordat.statements.closure import Closure
from concordat.statements.contract import contract_statement
from concordat.statements.fields import rfc3339
from concordat.statements.provenance import LocalUpdate, aggregation_provenance, update_provenance
from concordat.statements.release import ReleaseStatement
from concordat.statements.summary import Summary, consent, levels, verdict
from concordat.tensors import Tensors, write_tensors
from concordat_agent.agent import FIELD_MANAGER, Agent
from concordat_agent.keyring import Keyring
from concordat_agent.notes import Notes
from concordat_agent.releases.champions import Champions
from concordat_agent.signer import Prepare, Signer, clipped
from concordat_agent.updates.ledger import Ledger
from concordat_agent.workspace import Workspace
from tests.support.clocks import SetHubClock
from tests.support.contracts import contract
from tests.support.grants import TrustingGateway, grant
from tests.support.policies import policy
from tests.support.presence import present
from tests.support.waiting import no_hang

IMAGE = "registry.local/learning@sha256:" + "1" * 64
R = TypeVar("R", bound=Resource)
A, B = "vit.layer.0.lora_A.weight", "vit.layer.0.lora_B.weight"


class World:
    """The surroundings of one agent, and what the hub and the trainer do there."""

    def __init__(self, cluster: Cluster, registry: RegistryStore, folder: Path) -> None:
        self.cluster, self.registry, self.folder = cluster, registry, folder
        self.site = f"site-{uuid.uuid4().hex[:8]}"
        self.uid = str(uuid.uuid4())
        self.clock = FixedClock(datetime.now(UTC).replace(microsecond=0))
        self.hub, self.aggregator, self.evaluator, self.key = (SigningKey.generate() for _ in range(4))
        self.gateway_key = SigningKey.generate()
        self.gateway = TrustingGateway(self.gateway_key, self.clock, lambda _: self.uid)
        self.cache = Cache()
        self.cache.watch([Site, Update, Release, JOB])
        self.writes = 0
        self.parent: Tensors = {A: np.eye(2, 4, dtype=np.float32), B: np.zeros((4, 2), np.float32)}
        cluster.on_write = self._written

    def _written(self, obj: dict[str, Any]) -> None:
        self.writes += obj["kind"] in ("Update", "Release", "Site")
        self.cache.feed(obj)

    def agent(self, *, prepare: Prepare = clipped, key: SigningKey | None = None, **rules: Any) -> Agent:
        """The agent as it is after a (re)start."""
        site_policy = policy(IMAGE, **rules)
        return Agent(
            site=self.site,
            cluster=self.cluster,
            cache=self.cache,
            registry=self.registry,
            gateway=self.gateway,
            clock=SetHubClock(self.clock),
            policy=site_policy,
            trust=Trust(
                contract_keys=(self.hub.public,),
                aggregation_keys=(self.aggregator.public,),
                gateway_keys=(self.gateway_key.public,),
                evaluators={"evaluator": (self.evaluator.public,)},
            ),
            signer=Signer(self.site, Keyring(key or self.key), self.registry, site_policy.digest, prepare),
            workspace=Workspace(self.folder),
            champions=Champions(self.folder / "adopted.json"),
            ledger=Ledger(self.folder / "consents.json"),
            notes=Notes(self.folder / "notes"),
        )

    async def create_site(self, role: str = "Trainer") -> None:
        """The namespace and its Site."""
        await self.cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.site}})
        await self.create(
            "Site",
            self.site,
            {
                "role": role,
                "federations": [{"name": "digits", "dataClaim": "data"}],
                "workspaceClaim": "workspace",
                "judgingImage": IMAGE,
            },
        )

    async def create(self, kind: str, name: str, spec: dict[str, Any], **metadata: Any) -> None:
        """Create one of our objects in the site's namespace."""
        await self.cluster.create(
            {
                "apiVersion": "concordat.dev/v1alpha1",
                "kind": kind,
                "metadata": {"namespace": self.site, "name": name, **metadata},
                "spec": spec,
            }
        )

    async def push_adapter(self, tensors: Tensors, beside: dict[str, bytes] | None = None) -> ArtifactRef:
        """Cache an adapter as the hub does; with other files `beside` its tensors, or another configuration."""
        files = {types.ADAPTER_FILE: write_tensors(tensors), types.ADAPTER_CONFIG_FILE: b'{"r": 2, "lora_alpha": 2}'}
        files |= beside or {}
        return await self.registry.push("digits/adapters", types.ADAPTER, files)

    async def contract(self, **changes: Any) -> dict[str, Any]:
        """A contract with this site in it, on a base and a parent that are in the registry."""
        base = await self.registry.push("digits/base", types.BASE_PACKAGE, {"package.json": b"{}"})
        parent = await self.push_adapter(self.parent)
        fields = {
            "round": {"name": "r1", "namespace": "concordat", "uid": self.uid, "generation": 1},
            "base": base,
            "parent": parent,
            "sites": [self.entry(self.key)],
            "recipe": {"image": IMAGE, "trainFactor": "B"},
            "screening": {"clipNorm": "2"},
            "aggregation": {"rule": "Mean", "preAggregation": "None", "maxFaultySites": 0},
            "opens": self.clock.now(),
        }
        return contract(**{**fields, **changes}).wire()

    def entry(self, key: SigningKey, site: str | None = None) -> dict[str, str]:
        """A site in a contract, with a key; this one if nothing is said."""
        return {"name": site or self.site, "keyThumbprint": key.public.thumbprint, "publicKey": key.public.to_pem()}

    async def request(self, contract: dict[str, Any], *, signer: SigningKey | None = None, **changes: Any) -> str:
        """Publish a contract and create the Update; returns its name."""
        document = canonical(contract)
        digest = sha256_digest(document)
        statement = contract_statement(contract, digest)
        files = {
            Contract.FILE: document,
            Contract.STATEMENT_FILE: sign(statement, signer or self.hub),
        }
        ref = await self.registry.push(f"digits/rounds/{self.uid}", types.CONTRACT, files)
        spec = {
            "federation": "digits",
            "roundRef": {"name": "r1", "namespace": "concordat", "uid": self.uid},
            "site": self.site,
            "contract": ref.wire(),
            "contractDigest": digest,
            "consentDeadline": contract["consentDeadline"],
            "submissionDeadline": contract["submissionDeadline"],
        }
        name = f"r1-{self.uid[:8]}"
        await self.create("Update", name, {**spec, **changes})
        return name

    async def offer(
        self,
        sequence: int = 1,
        *,
        value: float = 0.5,
        contract: dict[str, Any] | None = None,
        signers: dict[str, SigningKey] | None = None,
        without: str = "",
        candidate: bool = False,
        by: tuple[str, SigningKey] | None = None,
        beside: dict[str, bytes] | None = None,
        **changes: Any,
    ) -> str:
        """Publish a round's outcome with its lineage, and create the copy of the release; returns its name.

        `by` is the only site that took part, this one if nothing is said. `candidate` ends the lineage before the
        evaluation. `signers` and `without` spoil one of its statements; `beside` are other files of the adapter.
        """
        site, key = by or (self.site, self.key)
        terms = contract or await self.contract(sites=[self.entry(key, site)])
        adapter = await self.push_adapter({**self.parent, B: np.full((4, 2), value, np.float32)}, beside)
        lines = self._lineage(terms, adapter, sequence, site, {"consent": key, "update": key, **(signers or {})})
        if candidate:
            lines = {name: line for name, line in lines.items() if name not in ("evaluation", "release")}
        kept = bundle(line for name, line in lines.items() if name != without)
        ref = await self.registry.push("digits/lineage", types.LINEAGE, {types.LINEAGE_FILE: kept})
        spec = {
            "federation": "digits",
            "sequence": sequence,
            "base": terms["base"],
            "adapter": adapter.wire(),
            "parent": terms["parent"],
            "roundRef": {name: terms["round"][name] for name in ("name", "namespace", "uid")},
            "contractDigest": sha256_digest(canonical(terms)),
            "lineage": ref.wire(),
            "trainedFactor": terms["recipe"]["trainFactor"],
            **changes,
        }
        name = f"r1-{adapter.digest.removeprefix('sha256:')[:8]}"
        await self.create("Release", name, {field: said for field, said in spec.items() if said is not None})
        return name

    def _lineage(
        self, terms: dict[str, Any], adapter: ArtifactRef, sequence: int, site: str, signers: dict[str, SigningKey]
    ) -> dict[str, bytes]:
        """The statements of a round in which one site took part."""
        digest, uid, at = sha256_digest(canonical(terms)), terms["round"]["uid"], self.clock.now()
        lines: dict[str, bytes] = {}

        def add(name: str, key: SigningKey, statement: dict[str, Any]) -> str:
            lines[name] = sign(statement, signers.get(name, key))
            return unverified(lines[name]).id

        contract = Contract.model_validate(terms)
        add("contract", self.hub, contract_statement(terms, digest))
        consented = consent(
            site=site,
            round_uid=uid,
            contract_digest=digest,
            policy_digest=sha256_digest(b""),
            passed=True,
            reason="Consented",
            at=at,
        )
        delta, consent_id = sha256_digest(b"delta"), add("consent", self.key, consented.statement())
        granted = grant(site, contract, digest, delta, at)
        grant_id = add("grant", self.gateway_key, granted.statement())
        update = LocalUpdate(delta, consent_id, grant_id, steps=1, examples=1, norm="1", clipped=False, finished=at)
        reported = ReportedUpdate(
            site=site,
            artifact=contract.parent,
            statement=contract.parent,
            passed=True,
            reason="Verified",
            message="",
            norm="1",
            measurements={"cosine": "-0.5"},
            update_sha256=delta,
            statement_id=add("update", self.key, update_provenance(site, contract, digest, update).statement()),
        )
        verdict_id = add("verdict", self.aggregator, verdict(uid, digest, reported, at).statement())
        closure = Closure(contract=digest, verdicts=(verdict_id,), accepted=1, rejected=0, missing=(), closed=at)
        report = AggregationReport(
            contract_digest=digest,
            verdicts=[reported],
            rule=Rule.MEAN,
            pre_aggregation=PreAggregation.NONE,
            lora=LoraMode.ALTERNATING,
            max_faulty_sites=0,
            rejected=0,
            remaining_faults=0,
            suspected=[],
            spectrum=[],
            aggregated=[site],
            adapter=adapter,
            reason="Aggregated",
            message="",
        )
        closure_id = add("closure", self.aggregator, closure.statement())
        aggregation = aggregation_provenance(contract, report, closure_id, at)
        made_id = add("aggregation", self.aggregator, aggregation.statement())
        evaluation = Summary(
            file=names.ADAPTER_SUBJECT,
            subject=adapter.digest,
            verifier=names.agent_id("evaluator"),
            resource=names.release_resource("digits", sequence),
            policy=sha256_digest(b""),
            inputs=(made_id,),
            levels=levels(True, names.EVALUATED),
            site="evaluator",
            reason="Approved",
            at=at,
        )
        release = ReleaseStatement(
            subject=adapter.digest,
            federation="digits",
            sequence=sequence,
            supersedes=contract.parent.digest,
            contract=digest,
            provenance=made_id,
            evaluation=add("evaluation", self.evaluator, evaluation.statement()),
        )
        add("release", self.hub, release.statement())
        return lines

    async def put_back(self, obj: Update | Release) -> None:
        """Show of the agent what an earlier state of an object showed."""
        status = {name: value for name, value in obj.status.wire().items() if name != "observedGeneration"}
        await self.cluster.apply_status(type(obj), *obj.key, status, FIELD_MANAGER)

    async def propose(self, manifest: dict[str, Any]) -> None:
        """Have the API server complete the Job with its defaults, as the hub does; the agent sees it.

        The Job controller has seen it by then, too: what it writes makes another version of the Job.
        """
        job = await self.cluster.create(manifest)
        async with no_hang(lambda: "the Job controller, which has yet to see the Job"):
            while manifest["spec"]["suspend"] and not (job.get("status") or {}).get("conditions"):
                job = await self.cluster.get(JOB, self.site, job["metadata"]["name"])
        self.cache.feed(job)

    def job(self, name: str) -> dict[str, Any]:
        """Return the Job as the agent sees it."""
        job: dict[str, Any] = present(self.cache.get(JOB, self.site, name))
        return job

    def end_job(self, name: str, *, failed: str | None = None) -> None:
        """End a Job as the Job controller would."""
        job, at = self.job(name), rfc3339(self.clock.now())
        ends = (
            [{"type": "Failed", "status": "True", "reason": failed}]
            if failed
            else [{"type": "Complete", "status": "True"}]
        )
        status = {"conditions": ends} | ({} if failed else {"completionTime": at})
        version = str(int(job["metadata"]["resourceVersion"]) + 1)
        self.cache.feed({**job, "metadata": {**job["metadata"], "resourceVersion": version}, "status": status})

    def leave(self, job: str, files: dict[str, bytes]) -> None:
        """What the trainer leaves."""
        result = self.folder / "work" / job / "out" / "result"
        result.mkdir(parents=True)
        for name, data in files.items():
            (result / name).write_bytes(data)

    def get(self, kind: type[R], name: str) -> R:
        """Return the site's object of that name as the cache has it; it must exist."""
        return present(self.cache.get(kind, self.site, name))

    def condition(self, kind: type[Resource], name: str, type_: str) -> Condition | None:
        """Return a condition of the object as the cache has it, or None."""
        obj: Any = self.get(kind, name)
        return find(obj.status.conditions, ConditionType(type_))
