"""Every document of the protocol is read back as it was written, and refused with its file, member and value."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from concordat.api.types import ArtifactRef
from concordat.protocol.aggregation import AggregationReport, AggregationRequest, ReportedUpdate, SubmittedUpdate
from concordat.protocol.canary import CanaryReport, CanaryResponse
from concordat.protocol.document import Document, DocumentError
from concordat.protocol.evaluation import EvaluationEvidence, EvaluationTask, MeasuredModels, ModelQuality
from concordat.protocol.training import TrainingEvidence, TrainingTask
from tests.support.contracts import contract

DIGEST = "sha256:" + "a" * 64
REF = ArtifactRef(repository="digits/adapters", digest=DIGEST)
NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
QUALITY = ModelQuality(ppm=5, low_ppm=4, high_ppm=6)
REQUEST = AggregationRequest(
    contract=REF,
    contract_digest=DIGEST,
    contract_key="pem",
    gateway_keys=["pem"],
    submissions=[SubmittedUpdate(site="site-a", artifact=REF, statement=REF)],
)
REPORT = AggregationReport(
    contract_digest=DIGEST,
    verdicts=[
        ReportedUpdate(
            site="site-a",
            artifact=REF,
            statement=REF,
            passed=True,
            reason="Verified",
            message="norm 1",
            update_sha256=DIGEST,
        )
    ],
    rule="Mean",
    pre_aggregation="None",
    lora="FrozenA",
    max_faulty_sites=0,
    rejected=0,
    remaining_faults=0,
    suspected=[],
    spectrum=["0.5"],
    aggregated=["site-a"],
    adapter=REF,
    reason="Aggregated",
    message="1 update",
)
RESPONSE = CanaryResponse(loss_change="-0.1", trigger_gain_ppm=20_000, trigger="corner", target_class=3)
DOCUMENTS: list[Document] = [
    contract(),
    REQUEST,
    REPORT,
    TrainingTask(site="site-a"),
    TrainingEvidence(
        steps=8, examples=24, validation_examples=24, parent_ppm=1, candidate_ppm=2, isolation="verified", last_loss="1"
    ),
    EvaluationTask(models=["parent", "candidate"], confidence_ppm=950_000),
    EvaluationEvidence(examples=24, models=MeasuredModels(parent=QUALITY, candidate=QUALITY), isolation="verified"),
    CanaryReport(examples=24, parent_loss="0.5", sites={"site-a": RESPONSE}),
]
EACH = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: type(document).__name__)


@EACH
def test_a_document_is_read_back_as_it_was_written(document: Document) -> None:
    data = document.to_bytes()
    assert type(document).from_bytes(data) == document
    assert type(document).from_bytes(data).to_bytes() == data
    assert len(data) < document.LIMIT


@EACH
def test_what_a_later_version_adds_is_ignored(document: Document) -> None:
    assert type(document).from_bytes(json.dumps({**document.wire(), "ofTomorrow": [1]}).encode()) == document


@EACH
def test_a_document_says_what_it_is(document: Document) -> None:
    name = "schema" if "schema_" in type(document).model_fields else "kind"
    without = {key: value for key, value in document.wire().items() if key != name}
    for members, says in ((without, f"{name} is missing"), ({**without, name: "other"}, f"{name}: .*, got 'other'")):
        with pytest.raises(DocumentError, match=f"^{document.FILE}: {says}"):
            type(document).from_bytes(json.dumps(members).encode())


@EACH
@pytest.mark.parametrize("data", [b"", b"[]", b"\xff", b"[" * 100_000, b'{"schema":', b"null"], ids=repr)
def test_what_is_no_json_object_is_refused(document: Document, data: bytes) -> None:
    with pytest.raises(DocumentError, match=f"^{document.FILE}"):
        type(document).from_bytes(data)


@EACH
def test_a_file_above_its_limit_is_not_read(document: Document) -> None:
    with pytest.raises(DocumentError, match="at most"):
        type(document).from_bytes(b" " * (document.LIMIT + 1))


def test_a_long_value_is_not_repeated() -> None:
    data = TrainingTask(site="site-a").to_bytes().replace(b"site-a", b"X" * 10_000)
    with pytest.raises(DocumentError) as raised:
        TrainingTask.from_bytes(data)
    assert len(str(raised.value)) < 200
