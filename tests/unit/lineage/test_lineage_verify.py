"""A lineage that holds is read; a lineage that differs from it in anything is refused, and says in what."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from concordat.lineage import LineageError, bundle
from concordat.protocol.artifact_types import MAX_LINEAGE, MAX_STATEMENT
from concordat.protocol.canonical import sha256_digest
from concordat.statements import sign, unverified
from tests.support.lineage import Make

NAMES = (
    "contract",
    *(f"{kind} site-{letter}" for kind in ("consent", "grant", "update", "verdict") for letter in "abc"),
    "verdict site-d",
    "closure",
    "aggregation",
    "evaluation",
    "release",
)
CANDIDATE = NAMES[:-2]
OTHER = "sha256:" + "9" * 64


def test_a_lineage_that_holds(make: Make) -> None:
    chain = make.plain
    found = chain.verify()
    assert (found.accepted, found.rejected, found.missing) == (("site-a", "site-b", "site-c"), ("site-d",), ("site-e",))
    assert found.contract.federation == "digits"
    assert (found.contract_digest, found.contract_id) == (chain.digest, chain.ids["contract"])
    assert (found.closure_id, found.aggregation_id) == (chain.ids["closure"], chain.ids["aggregation"])
    assert (found.evaluation_id, found.release_id) == (chain.ids["evaluation"], chain.ids["release"])
    candidate = chain.candidate()
    assert (candidate.aggregation_id, candidate.evaluation_id) == (found.aggregation_id, None)
    assert set(chain.lines) == set(NAMES)


@given(
    st.lists(st.sampled_from(["accepted", "rejected", "missing"]), min_size=1, max_size=6).filter(
        lambda fates: "accepted" in fates
    ),
    st.randoms(use_true_random=False),
    st.integers(min_value=1, max_value=2**31 - 1),
)
def test_any_round_in_any_order_holds(make: Make, fates: list[str], random: Any, sequence: int) -> None:
    accepted, rejected, missing = (
        tuple(f"site-{i}" for i, one in enumerate(fates) if one == fate) for fate in ("accepted", "rejected", "missing")
    )
    chain = make.chain(accepted=accepted, rejected=rejected, missing=missing, sequence=sequence)
    lines = list(chain.lines.values())
    random.shuffle(lines)
    found = chain.verify(b"\n".join(lines))
    assert (found.accepted, found.rejected, found.missing) == (accepted, rejected, missing)


def test_a_rejected_update_may_be_shown_but_only_the_one_that_was_judged(make: Make) -> None:
    plain = make.chain(accepted=("site-a", "site-b", "site-c", "site-d"), rejected=(), missing=())
    consent, update = plain.lines["consent site-d"], plain.lines["update site-d"]
    judged = {"digest": {"sha256": plain.ids["update site-d"].removeprefix("sha256:")}}

    def about(statement: dict[str, Any]) -> None:
        statement["predicate"]["inputAttestations"] = [judged]

    chain = make.chain(missing=(), change={"verdict site-d": about})
    assert chain.verify().rejected == ("site-d",)
    assert chain.verify(chain.bundle(shown=update)).rejected == ("site-d",)
    assert chain.verify(chain.bundle(shown=update, asked=consent)).rejected == ("site-d",)
    with pytest.raises(LineageError, match="consent of site 'site-d' is not the one its update was made with"):
        chain.verify(chain.bundle(asked=consent))
    with pytest.raises(LineageError, match="update of site 'site-d' is not the one its verdict is about"):
        make.chain(missing=()).verify(chain.bundle(shown=update, **make.chain(missing=()).lines))


def test_the_longest_statements_of_a_thousand_sites_leave_room_for_the_hubs() -> None:
    assert 1000 * 2 * MAX_STATEMENT <= 3 * MAX_LINEAGE // 4


# ---- one statement missing, doubled, foreign, or by somebody else


@pytest.mark.parametrize("name", NAMES)
def test_no_statement_may_be_missing(make: Make, name: str) -> None:
    chain = make.plain
    with pytest.raises(LineageError):
        chain.verify(chain.bundle(**{name: None}))


@pytest.mark.parametrize("name", CANDIDATE)
def test_no_statement_of_a_candidate_may_be_missing(make: Make, name: str) -> None:
    chain = make.plain
    with pytest.raises(LineageError):
        chain.candidate(chain.bundle(evaluation=None, release=None, **{name: None}))


@pytest.mark.parametrize("signer", ["hub", "aggregator", "evaluator", "site-a", "site-b", "site-d", "stranger"])
@pytest.mark.parametrize("name", NAMES)
def test_every_statement_is_by_the_key_of_its_role(make: Make, name: str, signer: str) -> None:
    right = make.plain.signer(name)
    chain = make.chain(signers={name: signer})
    if signer == right:
        chain.verify()
        return
    with pytest.raises(LineageError, match="not signed by an accepted key"):
        chain.verify()


def _paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        if isinstance(inner, dict | list):
            yield from _paths(inner, (*path, key))
        else:
            yield (*path, key)


def _alter(value: Any) -> Any:
    """Something else of the same type, so that only the meaning is wrong."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if len(value) == 64 and not set(value) - set("0123456789abcdef"):
        return ("0" if value[0] != "0" else "1") + value[1:]
    return f"{value}x"


@pytest.mark.parametrize("name", NAMES)
def test_no_field_may_be_altered_even_if_its_author_signs_again(make: Make, name: str) -> None:
    chain = make.plain
    for path in _paths(make.statement(chain.lines[name])):
        if name in ("contract", "release") and path == ("subject", 0, "name"):
            # Nothing names these two by their id, and in-toto matches subjects by digest only.
            continue
        statement = make.statement(chain.lines[name])
        target: Any = statement
        for step in path[:-1]:
            target = target[step]
        target[path[-1]] = _alter(target[path[-1]])
        line = make.signed(statement, chain.signer(name))
        with pytest.raises(LineageError):
            chain.verify(chain.bundle(**{name: line}))


@pytest.mark.parametrize("name", NAMES)
def test_no_field_may_be_altered_by_anybody_else(make: Make, name: str) -> None:
    chain = make.plain
    envelope = json.loads(chain.lines[name])
    payload = base64.b64decode(envelope["dsseEnvelope"]["payload"])
    envelope["dsseEnvelope"]["payload"] = base64.b64encode(payload.replace(b"concordat.dev", b"concordat.org")).decode()
    with pytest.raises(LineageError):
        chain.verify(chain.bundle(**{name: json.dumps(envelope).encode()}))


@pytest.mark.parametrize("name", NAMES)
def test_no_statement_may_be_there_twice(make: Make, name: str) -> None:
    chain = make.plain
    line = json.loads(chain.lines[name])
    line["dsseEnvelope"]["signatures"][0]["keyid"] = ""
    with pytest.raises(LineageError, match="is in the bundle twice"):
        chain.verify(chain.bundle() + json.dumps(line).encode())


@pytest.mark.parametrize("name", NAMES)
def test_no_statement_of_another_round_may_be_added_or_put_in(make: Make, name: str) -> None:
    chain, other = make.chain(), make.chain(contract={"quorum": 2})
    for lines in (chain.bundle(added=other.lines[name]), chain.bundle(**{name: other.lines[name]})):
        with pytest.raises(LineageError):
            chain.verify(lines)


# ---- what the reader asks for, and bundles


def test_what_the_reader_asks_for_is_compared(make: Make) -> None:
    chain = make.plain
    for facts, says in (
        ({"adapter": OTHER}, "the adapter is sha256:999"),
        ({"adapter": ""}, "the adapter is absent"),
        ({"contract_digest": OTHER}, "the contract: its digest is .*, contractDigest is sha256:999"),
        ({"sequence": 2}, "release/digits/1, expected concordat:release/digits/2"),
    ):
        with pytest.raises(LineageError, match=says):
            chain.verify(**facts)
    with pytest.raises(LineageError):
        chain.candidate(contract_digest=OTHER)
    with pytest.raises(LineageError):
        chain.candidate(adapter=OTHER)


def test_a_candidate_is_no_release_and_a_release_is_no_candidate(make: Make) -> None:
    chain = make.plain
    with pytest.raises(LineageError, match="0 statements of kind evaluation, expected 1"):
        chain.verify(chain.bundle(evaluation=None, release=None))
    with pytest.raises(LineageError, match="of a candidate has an evaluation already"):
        chain.candidate(chain.bundle(release=None))
    with pytest.raises(LineageError, match="of a candidate has a release already"):
        chain.candidate(chain.bundle(evaluation=None))


def test_only_the_pinned_keys_count(make: Make) -> None:
    chain = make.chain(signers={"contract": "stranger", "release": "stranger"})
    with pytest.raises(LineageError, match="the contract: the statement is not signed by an accepted key"):
        chain.verify()


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (b"", "0 statements of kind contract, expected 1"),
        (b"\n\n", "line 1 of the bundle is no statement"),
        (b"{}\n", "line 1 of the bundle is no statement"),
        (b"\xff\n", "line 1 of the bundle is no statement"),
        (b"{}\n" * 6000, "6000 statements, at most 5120 are read"),
        (b" " * ((64 << 20) + 1), "at most 67108864 are read"),
    ],
)
def test_what_is_no_bundle_is_told(make: Make, lines: bytes, says: str) -> None:
    with pytest.raises(LineageError, match=says):
        make.plain.verify(lines)


@given(st.binary(max_size=400))
def test_any_bytes_are_refused_with_a_lineage_error(make: Make, data: bytes) -> None:
    chain = make.plain
    for lines in (data, chain.bundle() + data + b"\n"):
        with pytest.raises(LineageError):
            chain.verify(lines)


def test_a_statement_of_another_kind_is_refused(make: Make) -> None:
    chain = make.plain
    statement = make.statement(chain.lines["release"])
    statement["predicateType"] = "https://example.com/sbom"
    with pytest.raises(LineageError, match=r"another kind, 'https://example\.com/sbom'"):
        chain.verify(chain.bundle(more=make.signed(statement, "hub")))


def test_a_bundle_is_the_same_whatever_the_order_and_however_often(make: Make) -> None:
    lines = list(make.plain.lines.values())
    data = bundle(lines)
    assert data == bundle([*reversed(lines), *lines])
    assert data == bundle(data.splitlines())
    assert data.count(b"\n") == len(lines)


def test_a_sites_statement_in_pretty_print_is_still_one_line(make: Make) -> None:
    chain = make.plain
    pretty = json.dumps(json.loads(chain.lines["consent site-a"]), indent=2).encode()
    assert chain.bundle(**{"consent site-a": pretty}) == chain.bundle()


def test_what_is_no_statement_is_not_bundled() -> None:
    with pytest.raises(LineageError, match="cannot be read"):
        bundle([b"{}"])


def test_the_chain_of_the_tests_is_what_the_predicates_make(make: Make) -> None:
    chain = make.plain
    for name, line in chain.lines.items():
        assert sign(unverified(line).statement, make.key_of(chain.signer(name))) == line
    assert chain.ids["contract"] != chain.digest
    assert sha256_digest(b"") not in chain.ids.values()
