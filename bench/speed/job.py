"""The whole aggregation Job, in this process: what a user waits for is not the rule alone.

The registry is on the same disk and nothing is waited for: its answers cost what reading, hashing and writing cost.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.speed.inputs import Update, faulty
from concordat.api.round import Factor
from concordat.api.types import ArtifactRef
from concordat.artifacts import manifest
from concordat.artifacts.manifest import File
from concordat.artifacts.staging import staged
from concordat.protocol import artifact_types as types
from concordat.protocol.aggregation import AggregationReport, AggregationRequest
from concordat.protocol.canonical import canonical, sha256_digest
from concordat.protocol.contract import Contract
from concordat.protocol.locations import round_repository, site_repository
from concordat.statements import SigningKey, sign, unverified
from concordat.statements.contract import contract_statement
from concordat.statements.provenance import LocalUpdate, update_provenance
from concordat.statements.summary import consent
from concordat.tensors import factor_names, map_tensors, read_tensors, write_tensors
from concordat_aggregator.both_factors import method_of
from concordat_aggregator.inputs import load_contract, load_gateway_keys, load_parent, load_request
from concordat_aggregator.job import Until, run
from concordat_aggregator.screen_round import screen_round
from concordat_aggregator.verify import Verifier, reject_copies
from tests.fakes.registry import MemoryRegistry
from tests.support.contracts import IMAGE, OPENS, contract
from tests.support.grants import grant

IO, JUDGING, WHOLE = "its reads and writes", "judging alone", "the Job, ARC + DnC"
WHOLE_NNM, CANARY, SVD = "the Job, NNM + trimmed mean", "the Job with a canary", "the Job, Svd"
OPERATIONS = (IO, JUDGING, WHOLE, WHOLE_NNM, CANARY, SVD)
_GATEWAY = SigningKey.generate()
_UID, _PART = "0123abcd-1", 1 << 20
_QUIET = {"lossChange": "0", "triggerGainPpm": 0, "trigger": "corner", "targetClass": 0}


class LocalRegistry(MemoryRegistry):
    """The registry of the tests, which hashes and writes as much as the client of a real one."""

    def __init__(self) -> None:
        super().__init__()
        self._files: dict[tuple[str, str], dict[str, File]] = {}

    async def push(
        self,
        repository: str,
        artifact_type: str,
        files: Mapping[str, bytes | Path],
        annotations: Mapping[str, str] | None = None,
    ) -> ArtifactRef:
        """Store files as one artifact; they are hashed once."""
        contents = {name: data if isinstance(data, bytes) else data.read_bytes() for name, data in files.items()}
        described = [File(name, sha256_digest(data), len(data)) for name, data in sorted(contents.items())]
        digest = sha256_digest(manifest.build(artifact_type, described, annotations))
        ref = ArtifactRef(repository=repository, digest=digest)
        self.stored[repository, digest] = contents
        self._files[repository, digest] = {file.name: file for file in described}
        return ref

    async def files(self, ref: ArtifactRef) -> dict[str, File]:
        """Return the artifact's files by name, from the manifest alone."""
        return self._files[ref.repository, ref.digest]

    async def pull(self, ref: ArtifactRef, target: Path) -> Path:
        """Write all files into a folder, by parts that are hashed, as a download is."""
        if target.is_dir():
            return target
        with staged(target) as part:
            for name, data in self.stored[ref.repository, ref.digest].items():
                digest = hashlib.sha256()
                with (part / name).open("wb") as out:
                    for begin in range(0, len(data), _PART):
                        piece = data[begin : begin + _PART]
                        digest.update(piece)
                        out.write(piece)
                assert self._files[ref.repository, ref.digest][name].digest == "sha256:" + digest.hexdigest()
        return target


@dataclass(frozen=True)
class Round:
    """One round, as its Job is given it."""

    store: LocalRegistry
    request: ArtifactRef
    updates: list[ArtifactRef]
    candidate_bytes: int


def sent(updates: Sequence[Update], factor: Factor) -> list[bytes]:
    """Return what sites send whose updates hold these values, as B alone or as both factors."""
    return [write_tensors(_lora(update, factor)) for update in updates]


def open_round(deltas: Sequence[bytes], factor: Factor, aggregation: Mapping[str, Any], canary: bool = False) -> Round:
    """Return a round whose sites sent these, of B alone or of both factors, signed as they are in the field."""
    first = read_tensors(deltas[0])
    store, sites = LocalRegistry(), [f"site-{number:03}" for number in range(len(deltas))]
    hub, keys = SigningKey.generate(), {site: SigningKey.generate() for site in sites}

    async def opened() -> Round:
        parent = _parent(first)
        rank = min(parent[factor_names(parent, Factor.A)[0]].shape)
        config = json.dumps({"r": rank, "lora_alpha": rank, "peft_type": "LORA"}).encode()
        adapter = {types.ADAPTER_FILE: write_tensors(parent), types.ADAPTER_CONFIG_FILE: config}
        named = contract(
            round={"name": "r1", "namespace": "concordat", "uid": _UID, "generation": 1},
            base=await store.push("digits/base", types.BASE_PACKAGE, {"package.json": b"{}"}),
            parent=await store.push("digits/adapters", types.ADAPTER, adapter),
            sites=[
                {"name": site, "keyThumbprint": key.public.thumbprint, "publicKey": key.public.to_pem()}
                for site, key in keys.items()
            ],
            recipe={"image": IMAGE, "trainFactor": factor.value},
            screening={"clipNorm": "100000"} | ({"canary": {"claim": "canary"}} if canary else {}),
            aggregation={"maxFaultySites": faulty(len(sites)), **aggregation},
        )
        document = canonical(named.wire())
        digest = sha256_digest(document)
        signed = sign(contract_statement(named.wire(), digest), hub)
        place = round_repository("digits", _UID)
        files = {Contract.FILE: document, Contract.STATEMENT_FILE: signed}
        ref = await store.push(place, types.CONTRACT, files)
        entries = [
            await _submit(store, site, delta, named, digest, keys[site])
            for site, delta in zip(sites, deltas, strict=True)
        ]
        request = {
            "schema": "concordat.dev/aggregation-request/v1",
            "contract": ref.wire(),
            "contractDigest": digest,
            "contractKey": hub.public.to_pem(),
            "gatewayKeys": [_GATEWAY.public.to_pem()],
            "submissions": entries,
        }
        asked = {AggregationRequest.FILE: json.dumps(request).encode()}
        size = sum(tensor.nbytes for tensor in parent.values())
        artifacts = [ArtifactRef.model_validate(entry["artifact"]) for entry in entries]
        return Round(store, await store.push(place, types.AGGREGATION_REQUEST, asked), artifacts, size)

    return asyncio.run(opened())


def operations(updates: list[Update], folder: Path) -> dict[str, Callable[[], Any]]:
    """Return what is timed, each in a fresh folder below `folder`. It is the result, and goes when that is dropped."""
    only_b, both = sent(updates, Factor.B), sent(updates, Factor.BOTH)
    dnc = {"rule": "DnC", "preAggregation": "ARC"}
    nnm = {"rule": "TrimmedMean", "preAggregation": "NNM"}

    def whole(opened: Round) -> Callable[[], Any]:
        return lambda: _aggregate(opened, _fresh(folder), (Until.END,))

    # Of both factors there are as many values in all, and the result goes into both.
    plain, svd = open_round(only_b, Factor.B, dnc), open_round(both, Factor.BOTH, {**nnm, "lora": "Svd"})
    checked = open_round(only_b, Factor.B, dnc, canary=True)
    return {
        IO: lambda: _reads_and_writes(plain, _fresh(folder)),
        JUDGING: lambda: _judge(plain, _fresh(folder)),
        WHOLE: whole(plain),
        WHOLE_NNM: whole(open_round(only_b, Factor.B, nnm)),
        CANARY: lambda: _aggregate(checked, _fresh(folder), tuple(Until)),
        SVD: whole(svd),
    }


def _fresh(folder: Path) -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(dir=folder, prefix="work-")


def _aggregate(opened: Round, work: tempfile.TemporaryDirectory[str], runs: tuple[Until, ...]) -> Any:
    """Run the program as often as the pod has containers of it. What the learning image does between is not counted."""
    for until in runs:
        folder, checked = Path(work.name), Path(work.name) / "checked"
        result = asyncio.run(run(opened.store, opened.request, folder, until, checked=checked))
        if until is Until.UPDATES:
            _answer(checked / "canary", [f"site-{number:03}" for number in range(len(opened.updates))])
        if until is Until.CANDIDATE:
            _answer(checked / "gate", ["candidate"])
    assert result is not None
    data = asyncio.run(opened.store.read(result.report, AggregationReport.FILE))
    report = AggregationReport.from_bytes(data)
    assert report.reason == "Aggregated", f"{report.reason}: {report.message}"
    return work


def _answer(folder: Path, sites: list[str]) -> None:
    """Write what the learning image would leave."""
    found = {"schema": "concordat.dev/canary-report/v1", "examples": 1, "parentLoss": "1"}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "canary.json").write_text(json.dumps({**found, "sites": dict.fromkeys(sites, _QUIET)}))


def _judge(opened: Round, work: tempfile.TemporaryDirectory[str]) -> Any:
    """Verify every update and compare them: the Job before its rule."""

    async def judged() -> None:
        request = await load_request(opened.store, opened.request)
        signed = await load_contract(opened.store, request)
        parent = await load_parent(opened.store, signed.contract)
        method = method_of(signed.contract, parent, Path(work.name))
        verifier = Verifier(opened.store, signed, load_gateway_keys(request), parent, method, Path(work.name))
        verdicts = reject_copies(await verifier.verify_all(request.submissions))
        screened = screen_round(signed.contract, verdicts, method, [], None)
        assert screened.rejected == 0

    asyncio.run(judged())
    return work


def _reads_and_writes(opened: Round, work: tempfile.TemporaryDirectory[str]) -> Any:
    """Move the bytes that the Job cannot do without, and nothing else.

    Every update from the registry to the disk; read, and written in the coordinates in which updates are compared;
    those read to compare and to add up; the candidate sent.
    """

    async def moved() -> None:
        folder = Path(work.name)
        rows = []
        for number, ref in enumerate(opened.updates):
            path = await opened.store.pull(ref, folder / str(number)) / types.DELTA_FILE
            rows.append(folder / f"{number}.row")
            rows[-1].write_bytes(path.read_bytes())
        for _ in ("compare", "add up"):
            for path in rows:
                for tensor in map_tensors(path).values():
                    tensor.sum()
        await opened.store.push("digits/adapters", types.ADAPTER, {types.ADAPTER_FILE: bytes(opened.candidate_bytes)})

    asyncio.run(moved())
    return work


async def _submit(
    store: LocalRegistry, site: str, data: bytes, named: Contract, digest: str, key: SigningKey
) -> dict[str, Any]:
    slot = site_repository("digits", _UID, site)
    agreed = consent(
        site=site,
        round_uid=_UID,
        contract_digest=digest,
        policy_digest=sha256_digest(b"policy"),
        passed=True,
        reason="Consented",
        at=OPENS,
    )
    line = sign(agreed.statement(), key)
    granted = sign(grant(site, named, digest, sha256_digest(data), OPENS).statement(), _GATEWAY)
    made = LocalUpdate(
        sha256=sha256_digest(data),
        consent_id=unverified(line).id,
        grant_id=unverified(granted).id,
        steps=10,
        examples=100,
        norm="1",
        clipped=False,
        finished=OPENS,
    )
    update_line = sign(update_provenance(site, named, digest, made).statement(), key)

    async def push(kind: str, files: dict[str, bytes]) -> dict[str, str]:
        return (await store.push(slot, kind, files)).wire()

    return {
        "site": site,
        "artifact": await push(types.UPDATE, {types.DELTA_FILE: data}),
        "statement": await push(types.STATEMENT, {types.STATEMENT_FILE: update_line, types.GRANT_FILE: granted}),
        "consent": await push(types.STATEMENT, {types.STATEMENT_FILE: line}),
    }


def _lora(update: Update, factor: Factor) -> Update:
    """Return the values as factors of rank 8 or less: all B, (d, r), or half of the tensors A, (r, k)."""
    flat = [tensor.reshape(-1) for tensor in update.values()]
    rank = math.gcd(flat[0].size, 8)
    if factor is Factor.B:
        return {f"layer.{i:02}.lora_B.weight": values.reshape(-1, rank) for i, values in enumerate(flat)}
    half = len(flat) // 2
    out = {f"layer.{i:02}.lora_B.weight": values.reshape(-1, rank) for i, values in enumerate(flat[:half])}
    return out | {f"layer.{i:02}.lora_A.weight": values.reshape(rank, -1) for i, values in enumerate(flat[half:])}


def _parent(delta: Update) -> Update:
    """Return an adapter that the update fits: random, and so large that what Svd has to discard is small beside it."""
    rng, out = np.random.default_rng(0), {}
    for name in factor_names(delta, Factor.B):
        shape = delta[name].shape
        out[name] = rng.standard_normal(shape, dtype=np.float32)
        out[name.replace("lora_B", "lora_A")] = rng.standard_normal(shape[::-1], dtype=np.float32)
    return out
