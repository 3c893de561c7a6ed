"""The aggregator Job against a real registry: honest updates become a candidate, whatever a hostile site sends."""

from __future__ import annotations

import json
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from concordat.api.types import ArtifactRef
from concordat.protocol import artifact_types as types
from concordat.protocol.canonical import sha256_digest
from concordat.statements import SigningKey, names, sign
from concordat.tensors import read_tensors, write_tensors
from tests.apiserver.registry.federation import (
    B2,
    CONFIG,
    HONEST,
    PARENT,
    SITES,
    A,
    B,
    Federation,
    Running,
    federation,
    learned,
    running,
)
from tests.apiserver.registry.server import Registry

__all__ = ["federation", "running"]


def test_five_honest_updates_make_a_candidate(federation: Federation, tmp_path: Path) -> None:
    request = federation.request(federation.open(), federation.honest(*reversed(SITES)))
    report = federation.aggregate(request, tmp_path)

    assert [(v["site"], v["passed"], v["reason"]) for v in report["verdicts"]] == [(s, True, "Verified") for s in SITES]
    assert report["aggregated"] == list(SITES)
    assert report["rule"] == "TrimmedMean"
    assert report["contractDigest"] == federation.digest
    adapter = federation.read(report["adapter"], types.ADAPTER_FILE)
    assert adapter == federation.expected(*SITES)
    assert report["adapter"]["repository"] == "digits/adapters"
    assert federation.read(report["adapter"], types.ADAPTER_CONFIG_FILE) == CONFIG
    for verdict in report["verdicts"]:
        assert verdict["updateSha256"] == sha256_digest(write_tensors(HONEST[verdict["site"]]))
        assert verdict["statementId"].startswith("sha256:")
        assert 0 < float(verdict["norm"]) < 1

    # Once more, as after a crash: nothing changes.
    assert federation.aggregate(request, tmp_path) == report


def _resized(data: bytes, **changes: Any) -> bytes:
    """The same file, with changes to the header's entry of one tensor."""
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + length])
    header[B] |= changes
    body = json.dumps(header).encode()
    return struct.pack("<Q", len(body)) + body + data[8 + length :]


def _padded_header(data: bytes) -> bytes:
    """The same tensors in another file: the format allows spaces after the header."""
    length = struct.unpack("<Q", data[:8])[0]
    return struct.pack("<Q", length + 8) + data[8 : 8 + length] + b" " * 8 + data[8 + length :]


def _with(name: str, tensor: Any) -> bytes:
    return write_tensors({**HONEST["site-e"], name: tensor})


ZEROS = "sha256:" + "0" * 64
GOOD = write_tensors(HONEST["site-e"])
FULL = np.full((4, 2), 0.01, np.float32)
LONG = "x" * 4000 + ".lora_B.weight"
FILES: dict[str, tuple[bytes, str]] = {
    "truncated": (GOOD[:-1], "ArtifactUnreadable"),
    "half": (GOOD[: len(GOOD) // 2], "ArtifactUnreadable"),
    "padded": (GOOD + b"\0", "ArtifactUnreadable"),
    "empty": (b"", "ArtifactUnreadable"),
    "zeros": (b"\0" * 100, "ArtifactUnreadable"),
    "header too long": (struct.pack("<Q", 2**63) + GOOD[8:], "ArtifactUnreadable"),
    "header not JSON": (struct.pack("<Q", 8) + b"{{{{{{{{", "ArtifactUnreadable"),
    "header nested": (struct.pack("<Q", 200_000) + b'{"a":' * 40_000, "ArtifactUnreadable"),
    "overlap": (_resized(GOOD, data_offsets=[32, 64]), "ArtifactUnreadable"),
    "negative": (_resized(GOOD, data_offsets=[-32, 0]), "ArtifactUnreadable"),
    "huge shape": (_resized(GOOD, shape=[2**39, 2**39]), "ArtifactUnreadable"),
    "too large": (b"\0" * (3 << 20), "ArtifactUnreadable"),
    "pickled": (pickle.dumps({B: [1.0]}), "ArtifactUnreadable"),
    "zipped": (b"PK\x03\x04" + GOOD, "ArtifactUnreadable"),
    "float16": (_with(B, FULL.astype(np.float16)), "SchemaMismatch"),
    "float64": (_with(B, FULL.astype(np.float64)), "SchemaMismatch"),
    "integers": (_with(B, FULL.astype(np.int32)), "SchemaMismatch"),
    "transposed": (_with(B, FULL.T), "SchemaMismatch"),
    "flattened": (_with(B, FULL.reshape(-1)), "SchemaMismatch"),
    "a tensor missing": (write_tensors({B: FULL}), "SchemaMismatch"),
    "the frozen factor too": (_with(A, np.zeros((2, 4), np.float32)), "SchemaMismatch"),
    "only the frozen factor": (write_tensors({A: np.zeros((2, 4), np.float32)}), "SchemaMismatch"),
    "a foreign tensor": (_with("évil\x1b[31m\n.lora_B.weight", FULL), "SchemaMismatch"),
    "a long name": (_with(LONG, FULL), "SchemaMismatch"),
    "no tensor": (write_tensors({}), "SchemaMismatch"),
    "NaN": (_with(B, FULL * np.float32("nan")), "NotFinite"),
    "one infinity": (_with(B, np.where(np.eye(4, 2), np.inf, FULL).astype(np.float32)), "NotFinite"),
    "oversized": (_with(B, FULL * 100), "NormExceeded"),
    "just oversized": (write_tensors({B: np.full((4, 2), 0.3545, np.float32), B2: FULL * 0}), "NormExceeded"),
    "overflowing norm": (_with(B, np.full((4, 2), 3e38, np.float32)), "NormExceeded"),
    "copy of site-a": (write_tensors(HONEST["site-a"]), "Duplicate"),
    "copy with another header": (_padded_header(write_tensors(HONEST["site-a"])), "Duplicate"),
}


@pytest.mark.parametrize("case", FILES)
def test_a_malformed_file_is_rejected_and_the_round_goes_on(running: Running, tmp_path: Path, case: str) -> None:
    data, reason = FILES[case]
    running.only_site_e_is_out(running.federation.submit("site-e", data), tmp_path, reason)


OTHER = ArtifactRef(repository="digits/adapters", digest="sha256:" + "9" * 64)


def _edited(**edit: Any) -> Callable[[Federation], dict[str, Any]]:
    """A correctly signed statement with edits to its predicate; a key is a path with dots."""

    def submit(f: Federation) -> dict[str, Any]:
        statement = f.statement("site-e", sha256_digest(GOOD))
        for path, value in edit.items():
            at: Any = statement
            *parents, last = path.split("__")
            for step in parents:
                at = at[int(step) if isinstance(at, list) else step]
            at[int(last) if isinstance(at, list) else last] = value
        return f.submit("site-e", GOOD, bundle=sign(statement, f.keys["site-e"]))

    return submit


def _broken_bundle(bundle: bytes) -> Callable[[Federation], dict[str, Any]]:
    return lambda f: f.submit("site-e", GOOD, bundle=bundle)


def _forged(f: Federation) -> dict[str, Any]:
    """A bundle whose payload was changed after signing."""
    bundle = json.loads(sign(f.statement("site-e", sha256_digest(GOOD)), f.keys["site-e"]))
    other = json.loads(sign(f.statement("site-e", sha256_digest(GOOD), steps=11), f.keys["site-e"]))
    bundle["dsseEnvelope"]["payload"] = other["dsseEnvelope"]["payload"]
    return f.submit("site-e", GOOD, bundle=json.dumps(bundle).encode())


def _missing(part: str) -> Callable[[Federation], dict[str, Any]]:
    def submit(f: Federation) -> dict[str, Any]:
        entry = f.submit("site-e", GOOD)
        entry[part] = {**entry[part], "digest": "sha256:" + "0" * 64}
        return entry

    return submit


def _elsewhere(f: Federation) -> dict[str, Any]:
    """The artifact lies in another site's repository."""
    entry = f.submit("site-e", GOOD)
    entry["artifact"] = f.push(f.slot("site-a"), types.UPDATE, {types.DELTA_FILE: GOOD}).wire()
    return entry


def _replayed(f: Federation) -> dict[str, Any]:
    """Artifact and statement of the same site, from an earlier round."""
    with Federation(f.url, f.uid[::-1], f.hub, f.keys) as earlier:
        earlier.open()
        return earlier.submit("site-e", GOOD)


def _borrowed(f: Federation) -> dict[str, Any]:
    """site-a's artifact and statement, handed in as site-e's."""
    return {**f.submit("site-a", write_tensors(HONEST["site-a"])), "site": "site-e"}


STATEMENTS: dict[str, tuple[Callable[[Federation], dict[str, Any]], str]] = {
    "signed by an unknown key": (lambda f: f.submit("site-e", GOOD, key=SigningKey.generate()), "SignatureInvalid"),
    "signed by another site": (lambda f: f.submit("site-e", GOOD, key=f.keys["site-a"]), "SignatureInvalid"),
    "signed by the hub": (lambda f: f.submit("site-e", GOOD, key=f.hub), "SignatureInvalid"),
    "forged payload": (_forged, "SignatureInvalid"),
    "another site's update": (_borrowed, "SignatureInvalid"),
    "names another site": (lambda f: f.submit("site-e", GOOD, site="site-a", key=f.keys["site-e"]), "StatementInvalid"),
    "other content": (lambda f: f.submit("site-e", GOOD, update_digest=ZEROS), "GrantInvalid"),
    "other content than was granted": (
        lambda f: f.submit("site-e", GOOD, update_digest=ZEROS, granted=f.grant("site-e", ZEROS)),
        "StatementInvalid",
    ),
    "no grant": (lambda f: f.submit("site-e", GOOD, granted=b""), "GrantInvalid"),
    "another contract": (lambda f: f.submit("site-e", GOOD, contract_digest=OTHER.digest), "ContractMismatch"),
    "another parent": (lambda f: f.submit("site-e", GOOD, parent=OTHER), "ParentMismatch"),
    "another base": (lambda f: f.submit("site-e", GOOD, base=OTHER), "ParentMismatch"),
    "another round": (lambda f: f.submit("site-e", GOOD, round_uid="0" * 32), "Replayed"),
    "replayed": (_replayed, "Replayed"),
    "no bundle": (_broken_bundle(b""), "StatementInvalid"),
    "not JSON": (_broken_bundle(b"\xff\xfe"), "StatementInvalid"),
    "a list": (_broken_bundle(b"[]"), "StatementInvalid"),
    "nested": (_broken_bundle(b'{"a":' * 100_000), "StatementInvalid"),
    "too large a statement": (_broken_bundle(b" " * ((1 << 20) + 1)), "StatementInvalid"),
    "statement missing": (_missing("statement"), "StatementInvalid"),
    "artifact missing": (_missing("artifact"), "ArtifactUnreadable"),
    "artifact elsewhere": (_elsewhere, "ArtifactUnreadable"),
    "two files": (
        lambda f: f.submit("site-e", GOOD, files={types.DELTA_FILE: GOOD, "x.py": b"x"}),
        "ArtifactUnreadable",
    ),
    "file misnamed": (lambda f: f.submit("site-e", GOOD, files={"delta.pt": GOOD}), "ArtifactUnreadable"),
    "no dependencies": (_edited(predicate__buildDefinition__resolvedDependencies=[]), "StatementInvalid"),
    "dependencies not a list": (_edited(predicate__buildDefinition__resolvedDependencies=7), "StatementInvalid"),
    "a dependency not an object": (
        _edited(predicate__buildDefinition__resolvedDependencies__0="x"),
        "StatementInvalid",
    ),
    "a role that is a list": (
        _edited(predicate__buildDefinition__resolvedDependencies__0__annotations={"role": ["base"]}),
        "StatementInvalid",
    ),
    "no parameters": (_edited(predicate__buildDefinition__externalParameters={}), "StatementInvalid"),
    "parameters of odd types": (
        _edited(predicate__buildDefinition__externalParameters={"site": ["x"], "round": {}, "contract": None}),
        "StatementInvalid",
    ),
    "another build type": (_edited(predicate__buildDefinition__buildType=names.AGGREGATION), "StatementInvalid"),
    "another predicate": (_edited(predicateType=names.VSA), "StatementInvalid"),
    "another builder": (_edited(predicate__runDetails__builder={"id": names.AGGREGATOR}), "StatementInvalid"),
    "two subjects": (_edited(subject=[{"digest": {"sha256": "0" * 64}}] * 2), "StatementInvalid"),
    "a subject without digest": (_edited(subject=[{"name": "delta.safetensors"}]), "StatementInvalid"),
    "an odd round": (
        _edited(predicate__buildDefinition__externalParameters__round="\x1b]0;\u202e" + "x" * 5000),
        "Replayed",
    ),
}


@pytest.mark.parametrize("case", STATEMENTS)
def test_a_wrong_statement_is_rejected_and_the_round_goes_on(running: Running, tmp_path: Path, case: str) -> None:
    submit, reason = STATEMENTS[case]
    last = running.only_site_e_is_out(submit(running.federation), tmp_path, reason)
    if reason == "SignatureInvalid":
        assert last["statementId"] is None


@pytest.mark.parametrize("damage", ["flipped", "truncated", "removed"])
def test_an_update_damaged_in_storage_is_rejected(
    running: Running, registry: Registry, tmp_path: Path, damage: str
) -> None:
    data = write_tensors(learned(len(damage) + 100))
    entry = running.federation.submit("site-e", data)
    blob = registry.blob(sha256_digest(data))
    if damage == "removed":
        blob.unlink()
    else:
        blob.write_bytes(data[:-1] if damage == "truncated" else data[:-1] + bytes([data[-1] ^ 1]))
    running.only_site_e_is_out(entry, tmp_path, "ArtifactUnreadable")


def test_updates_of_nothing_ride_free_and_are_copies_also_with_negative_zeros(
    federation: Federation, tmp_path: Path
) -> None:
    contract = federation.open(quorum=1, aggregation={"rule": "Mean", "preAggregation": "None", "maxFaultySites": 0})
    zeros = {name: np.zeros((4, 2), np.float32) for name in (B, B2)}
    submissions = [
        federation.submit("site-c", write_tensors({name: -tensor for name, tensor in zeros.items()})),
        federation.submit("site-b", write_tensors(zeros)),
    ]
    report = federation.aggregate(federation.request(contract, submissions), tmp_path)
    assert [(v["site"], v["reason"]) for v in report["verdicts"]] == [
        ("site-b", "Duplicate"),
        ("site-c", "FreeRiding"),
    ]
    assert report["rejected"] == 2
    assert report["reason"] == "QuorumNotReached"


def test_a_copy_does_not_take_the_place_of_a_rejected_original(federation: Federation, tmp_path: Path) -> None:
    contract = federation.open(quorum=1, aggregation={"rule": "Mean", "preAggregation": "None", "maxFaultySites": 0})
    submissions = [
        federation.submit("site-a", write_tensors(HONEST["site-b"]), key=SigningKey.generate()),
        *federation.honest("site-b"),
    ]
    report = federation.aggregate(federation.request(contract, submissions), tmp_path)
    assert [v["reason"] for v in report["verdicts"]] == ["SignatureInvalid", "Verified"]


@pytest.mark.parametrize(
    ("sites", "changes", "reason"),
    [
        ([], {}, "QuorumNotReached"),
        (SITES[:2], {}, "QuorumNotReached"),
        (SITES[:2], {"quorum": 2}, "TooManyFaults"),
        (SITES[:4], {"aggregation": {"rule": "CAF", "maxFaultySites": 2}}, "TooManyFaults"),
    ],
)
def test_too_few_updates_make_no_candidate(
    federation: Federation, tmp_path: Path, sites: tuple[str, ...], changes: dict[str, Any], reason: str
) -> None:
    contract = federation.open(**changes)
    report = federation.aggregate(federation.request(contract, federation.honest(*sites)), tmp_path)
    assert report["reason"] == reason
    assert (report["adapter"], report["aggregateNorm"]) == (None, None)
    assert report["aggregated"] == []
    assert [v["site"] for v in report["verdicts"]] == list(sites)


def test_a_parent_in_bfloat16_is_widened(federation: Federation, tmp_path: Path) -> None:
    def bfloat16(tensor: NDArray[np.float32]) -> bytes:
        return bytes((tensor.view(np.uint32) >> 16).astype("<u2").tobytes())

    header, body = {}, b""
    for name, tensor in PARENT.items():
        raw = bfloat16(tensor)
        header[name] = {
            "dtype": "BF16",
            "shape": list(tensor.shape),
            "data_offsets": [len(body), len(body) + len(raw)],
        }
        body += raw
    head = json.dumps(header).encode()
    data = struct.pack("<Q", len(head)) + head + body
    files = {types.ADAPTER_FILE: data, types.ADAPTER_CONFIG_FILE: CONFIG}
    parent = federation.push("digits/adapters", types.ADAPTER, files)
    contract = federation.open(parent=parent)
    report = federation.aggregate(federation.request(contract, federation.honest(*SITES)), tmp_path)
    assert read_tensors(federation.read(report["adapter"], types.ADAPTER_FILE)).keys() == PARENT.keys()
    assert federation.read(report["adapter"], types.ADAPTER_FILE) == federation.expected(*SITES)
