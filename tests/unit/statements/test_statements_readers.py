"""Each builder's statement is read back as what it is, and as nothing else; what is wrong is told."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from concordat.api.types import ArtifactRef
from concordat.protocol.canonical import canonical, sha256_digest
from concordat.statements import MalformedStatement, Unverified, predicates
from concordat.statements.readers import (
    read_aggregation,
    read_closure,
    read_contract,
    read_release,
    read_summary,
    read_update,
)

AT = datetime(2026, 11, 24, 12, tzinfo=UTC)
BASE = ArtifactRef(repository="digits/base", digest="sha256:" + "b" * 64)
PARENT = ArtifactRef(repository="digits/adapters", digest="sha256:" + "d" * 64)
C, D, U = ("sha256:" + letter * 64 for letter in "cde")

STATEMENTS: dict[str, tuple[dict[str, Any], Callable[..., Any]]] = {
    "consent": (
        predicates.consent_statement(
            site="site-a", round_uid="u1", contract_digest=C, policy_digest=D, passed=True, reason="Consented", at=AT
        ),
        read_summary,
    ),
    "update": (
        predicates.update_statement(
            site="site-a",
            round_uid="u1",
            update_digest=D,
            base=BASE,
            parent=PARENT,
            contract_digest=C,
            consent_id=U,
            steps=200,
            examples=280,
            norm="1.5",
            clipped=False,
            finished=AT,
        ),
        read_update,
    ),
    "verdict": (
        predicates.verdict_statement(
            site="site-a",
            round_uid="u1",
            update_digest=D,
            update_id=None,
            contract_digest=C,
            passed=False,
            reason="NotFinite",
            norm=None,
            measurements={"cosine": "-0.5"},
            alerts=[],
            at=AT,
        ),
        read_summary,
    ),
    "closure": (
        predicates.closure_statement(
            contract_digest=C, verdicts=[U, D], accepted=1, rejected=1, missing=["site-c"], at=AT
        ),
        read_closure,
    ),
    "aggregation": (
        predicates.aggregation_statement(
            round_uid="u1",
            adapter_digest=D,
            base=BASE,
            parent=PARENT,
            contract_digest=C,
            closure_id=U,
            updates=[D, C],
            rule="Mean",
            pre_aggregation="None",
            lora="Alternating",
            rejected=0,
            finished=AT,
        ),
        read_aggregation,
    ),
    "release": (
        predicates.release_statement(
            federation="digits",
            sequence=1,
            supersedes=PARENT.digest,
            adapter_digest=D,
            contract_digest=C,
            aggregation_id=U,
            evaluation_id=C,
        ),
        read_release,
    ),
}


def _read(name: str, statement: dict[str, Any] | None = None) -> Any:
    built, reader = STATEMENTS[name]
    content = statement if statement is not None else built
    return reader(Unverified(content, sha256_digest(canonical(content))))


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
    assert (aggregation.dependencies["update"], aggregation.parameters["rule"]) == ((C, D), "Mean")
    release = _read("release")
    assert (release.sequence, release.supersedes, release.evaluation) == (1, PARENT.digest, C)


@pytest.mark.parametrize("name", STATEMENTS)
def test_no_reader_takes_another_kind(name: str) -> None:
    statement, own = STATEMENTS[name]
    content = Unverified(statement, "sha256:" + "0" * 64)
    for reader in (read_contract, read_summary, read_update, read_closure, read_aggregation, read_release):
        if reader is own:
            continue
        with pytest.raises(MalformedStatement):
            reader(content)


def _paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*path, key)
        yield from _paths(inner, (*path, key))


_WRONG = st.sampled_from([None, True, 1.5, -1, 2**60, "", "x", [], [1], ["x"], {}, {"a": 1}, [[]], [{}]])


@given(st.sampled_from(sorted(STATEMENTS)), st.data())
def test_any_field_may_be_wrong_and_only_a_statement_error_comes_of_it(name: str, data: st.DataObject) -> None:
    statement = copy.deepcopy(STATEMENTS[name][0])
    # Type, subject and predicate are there: the envelope sees to that.
    below = [path for path in _paths(statement) if len(path) > 1]
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
    statement = predicates.contract_statement(contract={"schema": "x"}, digest=C)
    with pytest.raises(MalformedStatement, match="the contract is not valid: schema: ") as raised:
        read_contract(Unverified(statement, "sha256:" + "0" * 64))
    assert "\n" not in str(raised.value)


def test_two_subjects_are_not_one() -> None:
    statement = copy.deepcopy(STATEMENTS["update"][0])
    statement["subject"] *= 2
    with pytest.raises(MalformedStatement, match="2 entries, expected 1"):
        _read("update", statement)


def test_a_role_named_twice_is_told() -> None:
    statement = copy.deepcopy(STATEMENTS["update"][0])
    statement["predicate"]["buildDefinition"]["resolvedDependencies"] *= 2
    with pytest.raises(MalformedStatement, match="2 entries with role 'base'"):
        _read("update", statement).one("base")
