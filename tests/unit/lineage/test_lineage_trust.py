"""trust.json: as the hub writes it and the site's chart passes it on."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from concordat.lineage import LineageError, Trust
from concordat.statements import SigningKey

A, B, C, D, G = (SigningKey.generate().public for _ in range(5))


def _file(**changes: Any) -> str:
    hub = {"contractKeys": [A.to_pem()], "aggregationKeys": [B.to_pem()], "gatewayKeys": [G.to_pem()]}
    whole = {**hub, "evaluators": {"evaluator": C.to_pem()}}
    return json.dumps({name: value for name, value in {**whole, **changes}.items() if value is not None})


def test_it_round_trips() -> None:
    trust = Trust.from_json(_file())
    assert trust == Trust(contract_keys=(A,), aggregation_keys=(B,), gateway_keys=(G,), evaluators={"evaluator": (C,)})
    assert Trust.from_json(trust.to_json()) == trust
    assert trust.to_json() == Trust.from_json(trust.to_json()).to_json()


def test_an_evaluator_has_two_keys_while_one_takes_the_others_place() -> None:
    text = _file(evaluators={"evaluator": [C.to_pem(), D.to_pem()]})
    trust = Trust.from_json(text)
    assert trust.evaluators == {"evaluator": (C, D)}
    assert Trust.from_json(trust.to_json()) == trust
    for pems, says in (([C.to_pem(), "x"], "evaluators.evaluator.1: not a PEM"), ([C.to_pem()] * 4, "at most 3")):
        with pytest.raises(LineageError, match=says):
            Trust.from_json(_file(evaluators={"evaluator": pems}))


def test_a_federation_without_an_evaluator_yet() -> None:
    trust = Trust(contract_keys=(A,), aggregation_keys=(B,), gateway_keys=(G,), evaluators={})
    assert Trust.from_json(trust.to_json()) == trust


def test_keys_may_be_listed_twice_in_one_role_while_they_are_rotated() -> None:
    assert Trust.from_json(_file(contractKeys=[A.to_pem(), A.to_pem()])).contract_keys == (A, A)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "trust.json: the file: .*; take it from the hub's ConfigMap concordat-trust"),
        ("[]", "trust.json: the file: "),
        (_file(contractKeys=None), "contractKeys: Field required"),
        (_file(contractKeys=[]), "contractKeys: List should have at least 1 item"),
        (_file(contractKeys=[A.to_pem()] * 9), "contractKeys: List should have at most 8 items"),
        (_file(aggregationKeys="x"), "aggregationKeys: "),
        (_file(gatewayKeys=None), "gatewayKeys: Field required"),
        (_file(gatewayKeys=[]), "gatewayKeys: List should have at least 1 item"),
        (_file(gatewayKeys=[A.to_pem()]), "gatewayKeys has the same key as contractKeys"),
        (_file(evaluators={"Evaluator": C.to_pem()}), "evaluators.Evaluator"),
        (_file(evaluators={f"e{i}": C.to_pem() for i in range(17)}), "evaluators: "),
        (_file(owners=[]), "owners: Extra inputs"),
        (_file(contractKeys=["x"]), "contractKeys.0: not a PEM public key.* with its line breaks"),
        (_file(contractKeys=[A.to_pem(), "x" * 2000]), "contractKeys.1: "),
        (_file(evaluators={"evaluator": "x"}), "evaluators.evaluator: not a PEM public key"),
        (_file(aggregationKeys=[A.to_pem()]), "aggregationKeys has the same key as contractKeys"),
        (_file(evaluators={"evaluator": A.to_pem()}), "evaluators.evaluator has the same key as contractKeys"),
        (_file(evaluators={"e1": C.to_pem(), "e2": C.to_pem()}), "evaluators.e2 has the same key as evaluators.e1"),
    ],
)
def test_what_is_wrong_is_named_with_its_remedy(text: str, says: str) -> None:
    with pytest.raises(LineageError, match=says) as raised:
        Trust.from_json(text)
    assert "\n" not in str(raised.value)


@given(st.text() | st.dictionaries(st.text(), st.text() | st.lists(st.text())).map(json.dumps))
def test_any_text_is_refused_with_a_lineage_error(text: str) -> None:
    with pytest.raises(LineageError):
        Trust.from_json(text)
