"""The chain, offline: base ← contract ← consent ← update ← verdict ← closure ← aggregation ← evaluation ← release.

Every aggregated update was accepted and every accepted one aggregated, each was signed by the key that the contract
names for its site, and nothing is in the bundle that the chain does not need. Fails closed, with one sentence.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from concordat.lineage.bundle import Line, StatementKind, by_kind
from concordat.lineage.check import demand, only, opened, reading
from concordat.lineage.errors import LineageError
from concordat.lineage.trust import Trust
from concordat.lineage.updates import Accepted, accepted_updates, read_contract
from concordat.protocol.contract import Contract
from concordat.statements.contract import SignedContract
from concordat.statements.names import AGGREGATOR, EVALUATED, agent_id, release_resource
from concordat.statements.provenance import read_aggregation
from concordat.statements.release import read_release
from concordat.statements.summary import read_summary

__all__ = ["Lineage", "verify_candidate", "verify_release"]


@dataclass(frozen=True)
class Lineage:
    """A lineage that holds."""

    contract: Contract
    contract_digest: str
    contract_id: str
    accepted: tuple[str, ...]
    """Sites whose updates were aggregated."""
    rejected: tuple[str, ...]
    """Sites whose updates were not accepted."""
    missing: tuple[str, ...]
    """Sites of the contract that sent nothing."""
    closure_id: str
    aggregation_id: str
    evaluation_id: str | None = None
    release_id: str | None = None


def verify_candidate(lines: bytes, trust: Trust, *, adapter: str, contract_digest: str) -> Lineage:
    """Return the lineage of a candidate, up to the aggregation. Raises LineageError.

    `adapter` is the digest of the adapter's artifact, which binds all its files, `contract_digest` that of
    contract.json.
    """
    found = by_kind(lines, contract_digest)
    for kind in (StatementKind.EVALUATION, StatementKind.RELEASE):
        demand(not found[kind], f"the bundle of a candidate has {_a(kind)} already")
    return _candidate(found, trust, adapter, contract_digest)


def verify_release(lines: bytes, trust: Trust, *, adapter: str, contract_digest: str, sequence: int) -> Lineage:
    """Return the lineage of a release, up to the signed release. Raises LineageError."""
    found = by_kind(lines, contract_digest)
    lineage = _candidate(found, trust, adapter, contract_digest)
    evaluation_id = _evaluation(only(found, StatementKind.EVALUATION), trust, lineage, adapter, sequence)
    lineage = replace(lineage, evaluation_id=evaluation_id)
    return replace(lineage, release_id=_release(only(found, StatementKind.RELEASE), trust, lineage, adapter, sequence))


def _candidate(found: dict[StatementKind, list[Line]], trust: Trust, adapter: str, contract_digest: str) -> Lineage:
    signed = read_contract(only(found, StatementKind.CONTRACT), trust, contract_digest)
    updates = accepted_updates(found, trust, signed)
    aggregation_id = _aggregation(only(found, StatementKind.AGGREGATION), trust, signed, updates, adapter)
    return Lineage(
        contract=signed.contract,
        contract_digest=signed.digest,
        contract_id=signed.id,
        accepted=tuple(sorted(updates.ids)),
        rejected=updates.rejected,
        missing=updates.missing,
        closure_id=updates.closure_id,
        aggregation_id=aggregation_id,
    )


def _aggregation(line: Line, trust: Trust, signed: SignedContract, updates: Accepted, adapter: str) -> str:
    contract, what = signed.contract, "the aggregation"
    with reading(what):
        made = read_aggregation(opened(line, trust.aggregation_keys, what))
        demand(made.subject == adapter, f"{what} is of {made.subject}, the adapter is {adapter or 'absent'}")
        demand(made.builder == AGGREGATOR, f"{what} was made by {made.builder}, expected {AGGREGATOR}")
        for name, said, wanted in (
            ("round", made.parameters.get("round"), contract.round.uid),
            ("contract", made.parameters.get("contract"), signed.digest),
            ("rule", made.parameters.get("rule"), contract.aggregation.rule.value),
            ("preAggregation", made.parameters.get("preAggregation"), contract.aggregation.pre_aggregation.value),
            ("lora", made.parameters.get("lora"), contract.aggregation.lora.value),
        ):
            demand(said == wanted, f"{what} has {name} {said!r}, the contract {wanted!r}")
        for role, wanted in (
            ("base", contract.base.digest),
            ("parent", contract.parent.digest),
            ("contract", signed.digest),
            ("closure", updates.closure_id),
        ):
            demand(made.one(role) == wanted, f"{what} is made with {role} {made.one(role)}, expected {wanted}")
        demand(
            made.roles <= {"base", "parent", "contract", "closure", "update"},
            f"{what} has dependencies of unknown roles: {', '.join(sorted(made.roles))}",
        )
        used = made.all("update")
    demand(len(used) == len(set(used)), f"{what} names an update twice")
    left_out = sorted(site for site, id_ in updates.ids.items() if id_ not in used)
    demand(not left_out, f"accepted updates were not aggregated: {', '.join(left_out)}")
    strange = sorted(set(used) - set(updates.ids.values()))
    demand(not strange, f"updates were aggregated that were not accepted: {', '.join(strange[:3])}")
    demand(
        len(used) >= contract.quorum, f"{len(used)} updates were aggregated, the contract's quorum is {contract.quorum}"
    )
    return made.id


def _evaluation(line: Line, trust: Trust, lineage: Lineage, adapter: str, sequence: int) -> str:
    what, contract = "the evaluation", lineage.contract
    with reading(what):
        name = read_summary(line.content).site
        keys = trust.evaluators.get(name)
        if keys is None:
            known = ", ".join(sorted(trust.evaluators)) or "none"
            raise LineageError(f"{what} is by {name[:80]!r}, who is no trusted evaluator (trusted: {known})")
        said = read_summary(opened(line, keys, what))
    demand(
        contract.site(name) is None and not {k.thumbprint for k in keys} & {s.key_thumbprint for s in contract.sites},
        f"{what} is by {name}, who took part in the round; an evaluator must be independent",
    )
    demand(said.verifier == agent_id(name), f"{what} names verifier {said.verifier}, expected {agent_id(name)}")
    demand(said.passed and EVALUATED in said.levels, f"{what} did not pass: {said.reason}")
    demand(said.subject == adapter, f"{what} is about {said.subject}, the adapter is {adapter}")
    demand(said.inputs == (lineage.aggregation_id,), f"{what} does not rest on aggregation {lineage.aggregation_id}")
    resource = release_resource(contract.federation, sequence)
    demand(said.resource == resource, f"{what} is about {said.resource}, expected {resource}")
    return said.id


def _release(line: Line, trust: Trust, lineage: Lineage, adapter: str, sequence: int) -> str:
    what, contract = "the release", lineage.contract
    with reading(what):
        release = read_release(opened(line, trust.contract_keys, what))
    for name, said, wanted in (
        ("adapter", release.subject, adapter),
        ("federation", release.federation, contract.federation),
        ("sequence", release.sequence, sequence),
        ("contract", release.contract, lineage.contract_digest),
        ("provenance", release.provenance, lineage.aggregation_id),
        ("evaluation", release.evaluation, lineage.evaluation_id),
        ("supersedes", release.supersedes, contract.parent.digest),
    ):
        demand(said == wanted, f"{what} has {name} {said}, expected {wanted}")
    parent = contract.parent_release
    demand(
        release.sequence > parent.sequence,
        f"{what} has sequence {release.sequence}, not higher than {parent.sequence} of its parent {parent.name}",
    )
    return release.id


def _a(kind: StatementKind) -> str:
    return f"an {kind}" if kind is StatementKind.EVALUATION else f"a {kind}"
