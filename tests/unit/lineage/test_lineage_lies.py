"""A hub, a site or an evaluator that signs what is not so: whatever follows names the lie, and still it is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from concordat.lineage import LineageError
from concordat.statements import names
from tests.support.lineage import Make

Change = Callable[[dict[str, Any]], None]
OTHER = "sha256:" + "9" * 64


def _set(path: str, value: Any) -> Change:
    def change(statement: dict[str, Any]) -> None:
        *parents, last = path.split(".")
        target: Any = statement
        for step in parents:
            target = target[int(step) if step.isdigit() else step]
        target[int(last) if last.isdigit() else last] = value

    return change


def _hex(digest: str) -> dict[str, str]:
    return {"sha256": digest.removeprefix("sha256:")}


def _dependency(role: str, digest: str) -> Change:
    def change(statement: dict[str, Any]) -> None:
        for entry in statement["predicate"]["buildDefinition"]["resolvedDependencies"]:
            if entry["annotations"]["role"] == role:
                entry["digest"] = _hex(digest)

    return change


def _more(role: str, digest: str) -> Change:
    def change(statement: dict[str, Any]) -> None:
        entry = {"digest": _hex(digest), "annotations": {"role": role}}
        statement["predicate"]["buildDefinition"]["resolvedDependencies"].append(entry)

    return change


def _without(role: str) -> Change:
    def change(statement: dict[str, Any]) -> None:
        definition = statement["predicate"]["buildDefinition"]
        definition["resolvedDependencies"] = [
            entry for entry in definition["resolvedDependencies"] if entry["annotations"]["role"] != role
        ]

    return change


_SUBJECT = "subject.0.digest"
_PARAMETERS = "predicate.buildDefinition.externalParameters"


def _said(member: str, value: Any) -> Change:
    def change(statement: dict[str, Any]) -> None:
        statement["predicate"]["https://concordat.dev/decision/v1"][member] = value

    return change


def _term(name: str, value: Any) -> Change:
    def change(statement: dict[str, Any]) -> None:
        statement["predicate"][names.GRANT][name] = value

    return change


def _failed(statement: dict[str, Any]) -> None:
    statement["predicate"] |= {"verificationResult": "FAILED", "verifiedLevels": ["FAILED"]}


def _another_closure(statement: dict[str, Any]) -> None:
    statement["predicate"]["contract"] = OTHER
    statement["subject"][0]["digest"] = _hex(OTHER)


@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        (
            "contract",
            _set(_SUBJECT, _hex(OTHER)),
            "the statement is about .*, the contract in it has digest",
        ),
        ("contract", lambda s: s["predicate"]["recipe"].pop("image"), r"the contract is not valid: .*recipe\.image"),
        ("contract", lambda s: s["predicate"]["recipe"].pop("trainFactor"), r"not valid: .*recipe\.trainFactor"),
        ("consent site-a", _failed, "the consent of site site-a says no: Consented"),
        ("consent site-a", _set("predicate.verifiedLevels", ["CONCORDAT_ADOPTED"]), "consent of site site-a says no"),
        ("consent site-a", _set("predicate.verifier.id", "https://x"), "consent of site site-a is by https://x"),
        ("consent site-a", _set("predicate.resourceUri", "concordat:round/other"), "about concordat:round/other"),
        ("consent site-a", _set(_SUBJECT, _hex(OTHER)), "consent of site site-a is not in the bundle"),
        ("consent site-a", _said("site", "site-z"), "consent of site 'site-z' is by site 'site-z', which is not in"),
        ("update site-a", _dependency("base", OTHER), "update of site site-a was made from base sha256:999"),
        ("update site-a", _dependency("parent", OTHER), "update of site site-a was made from parent sha256:999"),
        ("update site-a", _dependency("contract", OTHER), "update of site site-a was made from contract sha256:999"),
        ("update site-a", _dependency("consent", OTHER), "consent of site 'site-a' is not the one its update"),
        ("update site-a", _more("consent", OTHER), "2 entries with role 'consent'"),
        ("update site-a", _more("dataset", OTHER), "update of site site-a has dependencies of unknown roles"),
        ("update site-a", _without("parent"), "0 entries with role 'parent'"),
        ("update site-a", _set(f"{_PARAMETERS}.round", "other"), "update of site site-a was made for round 'other'"),
        ("update site-a", _set(f"{_PARAMETERS}.contract", OTHER), "update of site site-a was made for contract"),
        ("update site-a", _set(f"{_PARAMETERS}.site", "site-z"), "site 'site-z', which is not in the contract"),
        ("update site-a", _set("predicate.runDetails.builder.id", "https://x"), "site-a was made by https://x"),
        ("update site-a", _set(_SUBJECT, _hex(OTHER)), "accepted update of site site-a is of sha256:999"),
        ("update site-a", _dependency("grant", OTHER), "grant of site 'site-a' is not the one its update"),
        ("update site-a", _without("grant"), "grant of site 'site-a' is not the one its update"),
        ("grant site-a", _set(_SUBJECT, _hex(OTHER)), "grant of site site-a is under contract sha256:999"),
        ("grant site-a", _term("round", "other"), "grant of site site-a is of round 'other'"),
        ("grant site-a", _term("site", "site-b"), "grant of site 'site-b' is not the one its update was sent with"),
        ("grant site-a", _term("key", "SHA256:x"), "grant of site site-a is for key SHA256:x"),
        ("grant site-a", _term("purpose", "stay"), "purpose is 'stay', expected train or send"),
        ("grant site-a", _term("purpose", "train"), "training and update cannot be named before there is an update"),
        ("grant site-a", _term("update", {"digest": _hex(OTHER)}), "grant of site site-a is to send sha256:999"),
        ("grant site-a", _term("notBefore", "2026-11-24T11:54:59Z"), "grant of site site-a was given before the round"),
        ("grant site-a", _term("notBefore", "2026-11-24T12:05:01Z"), "was given after the round was closed"),
        ("grant site-a", _set("predicate.producer.uri", names.AGGREGATOR), "producer is .*, expected"),
        ("grant site-a", _set("predicate.attributes", []), "demands AgentPod, .*, TrainerImage as well"),
        ("grant site-a", _set("predicate.attributes.0.attribute", "Honour"), "'Honour' is no kind of evidence"),
        ("grant site-a", _set("predicate.attributes.0.attribute", "SiteKey"), "SiteKey is there twice"),
        ("verdict site-a", _set(_SUBJECT, _hex(OTHER)), "its verdict about sha256:999"),
        ("verdict site-a", _set("predicate.inputAttestations", []), "accepts an update without its statement"),
        ("verdict site-a", _set("predicate.inputAttestations", [{"digest": _hex(OTHER)}]), "not the one its verdict"),
        ("verdict site-a", _set("predicate.inputAttestations", [{"digest": _hex(OTHER)}] * 2), "rests on 2 statements"),
        ("verdict site-a", _set("predicate.policy", {"digest": _hex(OTHER)}), "was given under contract sha256:999"),
        ("verdict site-a", _set("predicate.resourceUri", "concordat:round/x/site-a"), "about concordat:round/x/site-a"),
        ("verdict site-a", _set("predicate.verifier.id", "https://x"), "not exactly the 3 in the bundle"),
        ("verdict site-a", _set("predicate.verifiedLevels", ["CONCORDAT_EVALUATED"]), "something else than an update"),
        ("verdict site-a", _said("site", "site-b"), "there are two verdicts on site site-b|is about .*/site-a"),
        ("verdict site-a", _said("site", "site-z"), "site 'site-z', which is not in the contract"),
        ("verdict site-a", _failed, "the closure counts 3 accepted, its verdicts are 2"),
        ("closure", _set("predicate.verdicts", []), "lists 0 verdicts, and they are not exactly the 4"),
        ("closure", _set("predicate.verdicts.0", OTHER), "lists 4 verdicts, and they are not exactly the 4"),
        ("closure", _set("predicate.accepted", 2), "the closure counts 2 accepted, its verdicts are 3"),
        ("closure", _set("predicate.rejected", 0), "the closure counts 0 rejected, its verdicts are 1"),
        ("closure", _set("predicate.missing", []), "exactly the sites without a verdict as missing"),
        ("closure", _set("predicate.missing", ["site-e", "site-e"]), "exactly the sites without a verdict as missing"),
        ("closure", _set("predicate.contract", OTHER), "subject is not its contract"),
        ("closure", _another_closure, "the closure is of contract sha256:999"),
        ("aggregation", _set(_SUBJECT, _hex(OTHER)), "the aggregation is of sha256:999.*, the adapter is sha256:eee"),
        ("aggregation", _set("predicate.runDetails.builder.id", "https://x"), "aggregation was made by https://x"),
        ("aggregation", _set(f"{_PARAMETERS}.rule", "TrimmedMean"), "has rule 'TrimmedMean', the contract"),
        ("aggregation", _set(f"{_PARAMETERS}.round", "x"), "the aggregation has round 'x'"),
        ("aggregation", _set(f"{_PARAMETERS}.contract", OTHER), "the aggregation has contract 'sha256:999"),
        ("aggregation", _dependency("base", OTHER), "made with base sha256:999"),
        ("aggregation", _dependency("parent", OTHER), "made with parent sha256:999"),
        ("aggregation", _dependency("contract", OTHER), "made with contract sha256:999"),
        ("aggregation", _dependency("closure", OTHER), "made with closure sha256:999"),
        ("aggregation", _without("closure"), "0 entries with role 'closure'"),
        ("aggregation", _more("update", OTHER), "aggregated that were not accepted: sha256:999"),
        ("aggregation", _more("dataset", OTHER), "the aggregation has dependencies of unknown roles"),
        ("aggregation", _without("update"), "were not aggregated: site-a, site-b, site-c"),
        ("evaluation", _failed, "the evaluation did not pass: Approved"),
        ("evaluation", _set("predicate.verifiedLevels", ["CONCORDAT_ADOPTED"]), "the evaluation did not pass"),
        ("evaluation", _set("predicate.verifier.id", "https://x"), "the evaluation names verifier https://x"),
        ("evaluation", _set(_SUBJECT, _hex(OTHER)), "the evaluation is about sha256:999"),
        ("evaluation", _set("predicate.inputAttestations", []), "does not rest on aggregation"),
        (
            "evaluation",
            _set("predicate.resourceUri", "concordat:release/digits/2"),
            "expected concordat:release/digits/1",
        ),
        ("evaluation", _said("site", "somebody"), "by 'somebody', who is no trusted evaluator .trusted: evaluator."),
        ("release", _set(_SUBJECT, _hex(OTHER)), "the release has adapter sha256:999"),
        ("release", _set("predicate.federation", "letters"), "the release has federation letters, expected digits"),
        ("release", _set("predicate.sequence", 2), "the release has sequence 2, expected 1"),
        ("release", _set("predicate.contract", OTHER), "the release has contract sha256:999"),
        ("release", _set("predicate.provenance", OTHER), "the release has provenance sha256:999"),
        ("release", _set("predicate.evaluation", OTHER), "the release has evaluation sha256:999"),
        ("release", _set("predicate.supersedes", OTHER), "the release has supersedes sha256:999"),
        ("release", lambda s: s["predicate"].pop("supersedes"), "the release has supersedes None"),
    ],
)
def test_what_is_signed_but_not_so_is_refused(make: Make, name: str, change: Change, says: str) -> None:
    with pytest.raises(LineageError, match=says):
        make.chain(change={name: change}).verify()


@pytest.mark.parametrize(
    ("facts", "says"),
    [
        ({"aggregated": ("site-a", "site-b")}, "accepted updates were not aggregated: site-c"),
        ({"aggregated": ("site-a", "site-b", "site-c", "site-d")}, "aggregated that were not accepted"),
        ({"aggregated": ("site-a", "site-b", "site-c", "site-c")}, "names an update twice"),
        ({"contract": {"quorum": 4}}, "3 updates were aggregated, the contract's quorum is 4"),
        (
            {"contract": {"parentRelease": {"name": "digits-7", "sequence": 7}}},
            "not higher than 7 of its parent digits-7",
        ),
        ({"sequence": 0}, "sequence 0, not higher than 0 of its parent digits-0"),
        ({"contract": {"federation": "letters"}}, "expected concordat:release/letters/1"),
    ],
)
def test_a_round_that_breaks_its_contract_is_refused(make: Make, facts: dict[str, Any], says: str) -> None:
    with pytest.raises(LineageError, match=says):
        make.chain(**facts).verify()


def test_one_key_does_not_count_as_two_sites(make: Make) -> None:
    names = ["site-a", "site-b", "site-c", "site-d", "site-e"]
    entries = [make.entry(name) for name in names]
    twin = {**make.entry("site-a"), "name": "site-b"}
    for sites, says in (
        ([entries[0], twin, *entries[2:]], "gives two sites one key"),
        ([*entries, entries[0]], "names a site twice"),
        ([{**entries[0], "keyThumbprint": entries[1]["keyThumbprint"]}, *entries[1:]], "its publicKey has another"),
        ([{**entries[0], "publicKey": "x"}, *entries[1:]], "not a PEM public key"),
    ):
        with pytest.raises(LineageError, match=says):
            make.chain(contract={"sites": sites}).verify()


def test_an_evaluator_that_took_part_is_not_independent(make: Make) -> None:
    by_name = make.chain(missing=("evaluator",))
    with pytest.raises(LineageError, match="is by evaluator, who took part in the round"):
        by_name.verify()
    by_key = make.chain(contract={"sites": [*map(make.entry, ("site-a", "site-b", "site-c", "site-d"))]}, missing=())
    by_key.verify()
    entry = {**make.entry("evaluator"), "name": "site-e"}
    sites = [*map(make.entry, ("site-a", "site-b", "site-c", "site-d")), entry]
    with pytest.raises(LineageError, match="who took part in the round"):
        make.chain(contract={"sites": sites}).verify()


def test_an_accepted_update_may_not_be_left_out_together_with_its_consent(make: Make) -> None:
    chain = make.plain
    with pytest.raises(LineageError, match="the accepted update of site site-a is not in the bundle"):
        chain.verify(chain.bundle(**{"update site-a": None, "consent site-a": None, "grant site-a": None}))


def test_a_second_verdict_on_one_site_is_refused(make: Make) -> None:
    chain = make.plain
    again = make.statement(chain.lines["verdict site-a"])
    again["predicate"]["timeVerified"] = "2026-11-24T12:00:01Z"
    with pytest.raises(LineageError, match="there are two verdicts on site site-a"):
        chain.verify(chain.bundle(again=make.signed(again, "aggregator")))


def test_a_site_with_two_updates_is_refused(make: Make) -> None:
    chain = make.plain
    again = make.statement(chain.lines["update site-a"])
    again["subject"][0]["digest"] = _hex(OTHER)
    with pytest.raises(LineageError, match="not the one its verdict is about"):
        chain.verify(chain.bundle(again=make.signed(again, "site-a")))
