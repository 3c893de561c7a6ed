"""Gates, the schema of a candidate, and clipping."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from concordat.api import Reason
from concordat.api.round import Factor
from concordat.lora import Ceiling
from concordat.protocol.contract import Contract
from concordat.protocol.document import DocumentError
from concordat.protocol.evaluation import EvaluationEvidence
from concordat.protocol.training import TrainingEvidence
from concordat.screening import Limits, check_norms
from concordat.tensors import FormError, NotFiniteError, TensorError, Tensors, check_schema, write_tensors
from concordat_agent.policy import SitePolicy
from concordat_agent.signer import clipped
from concordat_agent.updates.gates import adapter, check_gates, learned
from tests.support.contracts import IMAGE, contract
from tests.support.policies import policy

A, B = "base.layer.0.lora_A.weight", "base.layer.0.lora_B.weight"
REF = {"repository": "digits/adapters", "digest": "sha256:" + "a" * 64}
NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


def _contract(**changes: Any) -> Contract:
    rules = {"budget": {"maxSteps": 200}, "gates": {"maxRegressionPpm": 20_000}}
    return contract(**{**rules, **changes})


def _policy(limit: int) -> SitePolicy:
    return policy(IMAGE, gates={"maxRegressionPpm": limit})


def _evidence(**changes: Any) -> dict[str, Any]:
    return {
        "schema": "concordat.dev/training-evidence/v1",
        "steps": 200,
        "examples": 280,
        "validationExamples": 70,
        "parentPpm": 900_000,
        "candidatePpm": 900_000,
        "wallSeconds": "3.2",
        "firstLoss": "1.0",
        "lastLoss": "0.1",
        "isolation": "verified",
        **changes,
    }


def _training(**changes: Any) -> TrainingEvidence:
    return TrainingEvidence.from_bytes(json.dumps(_evidence(**changes)).encode())


@pytest.mark.parametrize(
    ("evidence", "own_limit", "says"),
    [
        ({}, 1_000_000, None),
        ({"candidatePpm": 880_000}, 1_000_000, None),
        ({"candidatePpm": 879_999}, 1_000_000, "exceeds gates.maxRegressionPpm 20000"),
        ({"candidatePpm": 889_999}, 10_000, "exceeds gates.maxRegressionPpm 10000"),
        ({"candidatePpm": 1_000_000}, 0, None),
        ({"steps": 201}, 1_000_000, "201 steps, budget.maxSteps is 200"),
    ],
)
def test_gates(evidence: dict[str, Any], own_limit: int, says: str | None) -> None:
    answer = check_gates(_contract(), _policy(own_limit), _training(**evidence))
    assert answer.passed is (says is None)
    assert answer.reason is (Reason.SUBMITTED if says is None else Reason.GATE_FAILED)
    assert says is None or says in answer.message


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"schema": "other"}, "schema"),
        ({"isolation": "unknown"}, "isolation"),
        ({"candidatePpm": 1_000_001}, "candidatePpm"),
        ({"candidatePpm": "900000"}, "candidatePpm"),
        ({"candidatePpm": 9e5}, "candidatePpm"),
        ({"examples": 0}, "examples"),
        ({"steps": -1}, "steps"),
        ({"steps": 2**60}, "steps"),
    ],
)
def test_wrong_evidence_is_refused_with_its_field(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(DocumentError, match=field):
        _training(**changes)


@pytest.mark.parametrize("data", [b"", b"[]", b"\xff", b"[" * 100_000, b'{"schema":', b"null"])
def test_evidence_that_is_no_json_object_is_refused(data: bytes) -> None:
    with pytest.raises(DocumentError):
        TrainingEvidence.from_bytes(data)


def test_an_interval_must_contain_its_figure() -> None:
    good = {"ppm": 5, "lowPpm": 4, "highPpm": 6}
    evidence = {
        "schema": "concordat.dev/evaluation-evidence/v1",
        "examples": 10,
        "models": {"parent": good, "candidate": good},
        "isolation": "verified",
    }
    assert EvaluationEvidence.from_bytes(json.dumps(evidence).encode()).models.champion is None
    evidence["models"] = {"parent": good, "candidate": {**good, "lowPpm": 6}}
    with pytest.raises(DocumentError, match=r"models\.candidate.*outside its interval"):
        EvaluationEvidence.from_bytes(json.dumps(evidence).encode())


def _adapter(**changes: np.ndarray) -> Tensors:
    parent = {A: np.ones((2, 3), np.float32), B: np.zeros((3, 2), np.float32)}
    return {**parent, **changes}


def test_only_the_trained_factor_is_sent() -> None:
    trained = np.full((3, 2), 0.5, np.float32)
    delta = learned(_contract(), write_tensors(_adapter(**{B: trained})), write_tensors(_adapter()))
    assert list(delta) == [B]
    assert np.array_equal(delta[B], trained)


@pytest.mark.parametrize(
    "changes",
    [
        {A: np.full((2, 3), 1.0001, np.float32)},
        {A: np.full((2, 3), np.nan, np.float32)},
        {B: np.zeros((2, 3), np.float32)},
        {"extra.lora_B.weight": np.zeros((1, 1), np.float32)},
    ],
)
def test_a_candidate_that_is_no_trained_copy_is_refused(changes: dict[str, np.ndarray]) -> None:
    with pytest.raises(FormError):
        learned(_contract(), write_tensors(_adapter(**changes)), write_tensors(_adapter()))


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04", b"\x80\x04", b"\xff" * 64])
def test_a_candidate_that_is_no_safetensors_is_refused(data: bytes) -> None:
    with pytest.raises(TensorError):
        learned(_contract(), data, write_tensors(_adapter()))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_candidate_that_is_not_finite_is_not_sent(value: float) -> None:
    spoiled = write_tensors(_adapter(**{B: np.full((3, 2), value, np.float32)}))
    delta = learned(_contract(), spoiled, write_tensors(_adapter()))
    with pytest.raises(NotFiniteError):
        clipped(delta, _ceiling(10.0))


def _ceiling(clip_norm: float) -> Ceiling:
    return Ceiling(adapter(write_tensors(_adapter()), b'{"r": 2, "lora_alpha": 2}'), Factor.B, clip_norm)


_DELTAS = hnp.arrays(np.float32, (3, 2), elements=st.floats(-(2.0**60), 2.0**60, width=32, allow_subnormal=False))


@settings(max_examples=200)
@given(_DELTAS, st.floats(1e-3, 1e6))
def test_what_is_sent_passes_the_hubs_own_check(values: np.ndarray, clip_norm: float) -> None:
    ceiling = _ceiling(clip_norm)
    prepared = clipped({B: values}, ceiling)
    check_schema(prepared.delta, _adapter(), _contract().recipe.train_factor)
    assert check_norms(ceiling.norms(prepared.delta), Limits(clip_norm, None)) == pytest.approx(prepared.norm)
    assert prepared.clipped is (ceiling.norms({B: values})["base.layer.0"] > clip_norm)
    if not prepared.clipped:
        assert np.array_equal(prepared.delta[B], values)
