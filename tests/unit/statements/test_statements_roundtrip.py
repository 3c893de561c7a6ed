"""Each builder's statement is read back as what it is, and as nothing else; what is wrong is told."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from concordat.api.types import ArtifactRef
from concordat.protocol.aggregation import AggregationReport, ReportedUpdate
from concordat.protocol.canonical import canonical, sha256_digest
from concordat.statements import MalformedStatement, Unverified
from concordat.statements.closure import Closure, read_closure
from concordat.statements.contract import contract_statement, read_contract
from concordat.statements.grant import Grant, Purpose, Shown, read_grant, read_shown
from concordat.statements.provenance import (
    LocalUpdate,
    Provenance,
    aggregation_provenance,
    read_aggregation,
    read_update,
    update_provenance,
)
from concordat.statements.release import ReleaseStatement, read_release
from concordat.statements.summary import Summary, consent, read_summary, verdict
from tests.support.contracts import contract
from tests.support.grants import grant
from tests.support.json_paths import paths

AT = datetime(2026, 11, 24, 12, tzinfo=UTC)
BASE = ArtifactRef(repository="digits/base", digest="sha256:" + "b" * 64)
PARENT = ArtifactRef(repository="digits/adapters", digest="sha256:" + "d" * 64)
C, D, U = ("sha256:" + letter * 64 for letter in "cde")

CONTRACT = contract(
    round={"name": "r1", "namespace": "concordat", "uid": "u1", "generation": 1}, base=BASE, parent=PARENT
)
UPDATE = LocalUpdate(D, U, C, steps=200, examples=280, norm="1.5", clipped=False, finished=AT)
REPORTED = ReportedUpdate(
    site="site-a",
    artifact=PARENT,
    statement=PARENT,
    passed=False,
    reason="NotFinite",
    message="",
    measurements={"cosine": "-0.5"},
    update_sha256=D,
)
REPORT = AggregationReport(
    contract_digest=C,
    verdicts=[REPORTED.model_copy(update={"passed": True, "statement_id": id_}) for id_ in (D, C)],
    rule="Mean",
    pre_aggregation="None",
    lora="Alternating",
    max_faulty_sites=0,
    rejected=0,
    remaining_faults=0,
    suspected=[],
    spectrum=[],
    aggregated=["site-a"],
    adapter=ArtifactRef(repository="digits/adapters", digest=D),
    reason="Aggregated",
    message="",
)
Written = Summary | Provenance | Closure | ReleaseStatement | Shown | Grant
GRANT = grant("site-a", CONTRACT, C, D, AT)
SHOWN = Shown(
    contract=C,
    site="site-a",
    purpose=Purpose.SEND,
    nonce="n",
    policy=D,
    base=D,
    job_uid="j",
    update=D,
    training=U,
)

STATEMENTS: dict[str, tuple[Written, Callable[..., Written]]] = {
    "consent": (
        consent(
            site="site-a", round_uid="u1", contract_digest=C, policy_digest=D, passed=True, reason="Consented", at=AT
        ),
        read_summary,
    ),
    "update": (update_provenance("site-a", CONTRACT, C, UPDATE), read_update),
    "evidence": (SHOWN, read_shown),
    "grant to train": (
        replace(GRANT, purpose=Purpose.TRAIN, update=None, training=None, not_after=AT + timedelta(minutes=30)),
        read_grant,
    ),
    "grant": (GRANT, read_grant),
    "verdict": (verdict("u1", C, REPORTED, AT), read_summary),
    "closure": (
        Closure(contract=C, verdicts=(D, U), accepted=1, rejected=1, missing=("site-c",), closed=AT),
        read_closure,
    ),
    "aggregation": (aggregation_provenance(CONTRACT, REPORT, U, AT), read_aggregation),
    "release": (
        ReleaseStatement(
            subject=D,
            federation="digits",
            sequence=1,
            supersedes=PARENT.digest,
            contract=C,
            provenance=U,
            evaluation=C,
        ),
        read_release,
    ),
}


def _read(name: str, statement: dict[str, Any] | None = None) -> Any:
    written, reader = STATEMENTS[name]
    content = statement if statement is not None else written.statement()
    return reader(Unverified(content, sha256_digest(canonical(content))))


@pytest.mark.parametrize("name", STATEMENTS)
def test_a_statement_is_read_back_as_it_was_written(name: str) -> None:
    written, _ = STATEMENTS[name]
    read = _read(name)
    assert read == written
    assert read.statement() == written.statement()
    assert read.id == sha256_digest(canonical(written.statement()))


def test_what_was_built_is_read() -> None:
    consent = _read("consent")
    assert (consent.site, consent.passed, consent.subject, consent.resource) == (
        "site-a",
        True,
        C,
        "concordat:round/u1",
    )
    assert consent.levels == ("SLSA_BUILD_LEVEL_UNEVALUATED", "CONCORDAT_CONSENTED")
    update = _read("update")
    assert (update.subject, update.one("base"), update.one("consent")) == (D, BASE.digest, U)
    assert update.extension == {"steps": 200, "examples": 280, "norm": "1.5", "clipped": False}
    verdict = _read("verdict")
    assert (verdict.passed, verdict.levels, verdict.inputs, verdict.policy) == (False, ("FAILED",), (), C)
    closure = _read("closure")
    assert (closure.verdicts, closure.accepted, closure.missing) == ((D, U), 1, ("site-c",))
    aggregation = _read("aggregation")
    assert (aggregation.all("update"), aggregation.parameters["rule"]) == ((C, D), "Mean")
    release = _read("release")
    assert (release.sequence, release.supersedes, release.evaluation) == (1, PARENT.digest, C)


@pytest.mark.parametrize("name", STATEMENTS)
def test_no_reader_takes_another_kind(name: str) -> None:
    written, own = STATEMENTS[name]
    content = Unverified(written.statement(), "sha256:" + "0" * 64)
    for reader in (read_contract, read_summary, read_update, read_closure, read_aggregation, read_release):
        if reader is own:
            continue
        with pytest.raises(MalformedStatement):
            reader(content)


_WRONG: st.SearchStrategy[Any] = st.sampled_from(
    [None, True, 1.5, -1, 2**60, "", "x", [], [1], ["x"], {}, {"a": 1}, [[]], [{}]]
)


@given(st.sampled_from(sorted(STATEMENTS)), st.data())
def test_any_field_may_be_wrong_and_only_a_statement_error_comes_of_it(name: str, data: st.DataObject) -> None:
    statement = copy.deepcopy(STATEMENTS[name][0].statement())
    # Type, subject and predicate are there: the envelope sees to that.
    below = [path for path in paths(statement) if len(path) > 1]
    *parents, last = data.draw(st.sampled_from(below))
    target: Any = statement
    for step in parents:
        target = target[step]
    if data.draw(st.booleans()):
        del target[last]
    else:
        target[last] = data.draw(_WRONG)
    if not statement["subject"]:
        return
    reader = STATEMENTS[name][1]
    with suppress(MalformedStatement):
        reader(Unverified(statement, "sha256:" + "0" * 64))


def test_a_contract_that_is_none_is_told_in_one_line() -> None:
    statement = contract_statement({"schema": "x"}, C)
    with pytest.raises(MalformedStatement, match=r"the contract is not valid: contract\.json: schema: ") as raised:
        read_contract(Unverified(statement, "sha256:" + "0" * 64))
    assert "\n" not in str(raised.value)


def test_two_subjects_are_not_one() -> None:
    statement = copy.deepcopy(STATEMENTS["update"][0].statement())
    statement["subject"] *= 2
    with pytest.raises(MalformedStatement, match="2 entries, expected 1"):
        _read("update", statement)


def test_a_role_named_twice_is_told() -> None:
    statement = copy.deepcopy(STATEMENTS["update"][0].statement())
    statement["predicate"]["buildDefinition"]["resolvedDependencies"] *= 2
    with pytest.raises(MalformedStatement, match="2 entries with role 'base'"):
        _read("update", statement).one("base")
