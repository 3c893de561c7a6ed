"""What the aggregator leaves is compared with what it was asked; settings are told apart from mistakes."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest

from concordat.controller.environment import SettingsError
from concordat.errors import Terminal
from concordat.protocol.aggregation import AggregationReport
from concordat_operator.rounds.aggregation_result import result
from concordat_operator.settings import Settings

DIGEST = "sha256:" + "a" * 64
REF = {"repository": "digits/x", "digest": DIGEST}
ENVIRONMENT = {
    "CONCORDAT_NAMESPACE": "concordat",
    "CONCORDAT_REGISTRY_URL": "http://registry:5000",
    "CONCORDAT_OPERATOR_IMAGE": f"r/operator@{DIGEST}",
}


def pod(code: int, message: str) -> dict[str, Any]:
    return {"status": {"containerStatuses": [{"state": {"terminated": {"exitCode": code, "message": message}}}]}}


def test_the_result_is_that_of_the_pod_that_ended_well() -> None:
    good = json.dumps({"report": REF, "adapter": None})
    found = result([pod(75, "the registry is away"), pod(0, good), pod(1, "late")])
    assert found is not None
    assert found.report.digest == DIGEST
    assert found.adapter is None
    assert result([]) is None
    assert result([pod(75, "the registry is away"), {"status": {}}]) is None


@pytest.mark.parametrize("message", ["", "no json", "{}", '{"report": {"repository": "x", "digest": "y"}}'])
def test_a_result_that_cannot_be_read_is_terminal(message: str) -> None:
    with pytest.raises(Terminal, match="termination message"):
        result([pod(0, message)])


def test_a_report_needs_its_schema() -> None:
    methods = {"rule": "Mean", "preAggregation": "None", "lora": "FrozenA"}
    counts = {"maxFaultySites": 0, "rejected": 0, "remainingFaults": 0}
    lists: dict[str, list[str]] = {"verdicts": [], "suspected": [], "spectrum": [], "aggregated": []}
    document = {"contractDigest": DIGEST, **methods, **counts, **lists, "reason": "Aggregated", "message": ""}
    with pytest.raises(ValueError, match="schema is missing"):
        AggregationReport.from_bytes(json.dumps(document).encode())


def test_settings_come_from_the_environment() -> None:
    found = Settings.from_environment({**ENVIRONMENT, "CONCORDAT_RUNTIME_CLASS": "", "POD_NAME": "operator-0"})
    assert found.runtime_class is None
    assert found.learning_image is None
    assert found.identity == "operator-0"
    assert found.http_port == 8080
    assert found.writes_per_second == 100
    assert Settings.from_environment({**ENVIRONMENT, "CONCORDAT_WRITES_PER_SECOND": "20"}).writes_per_second == 20


def test_without_a_pod_every_process_has_a_name_of_its_own() -> None:
    """Finding 29: two operators started by hand were both "operator", and both led."""
    assert str(os.getpid()) in Settings.from_environment(ENVIRONMENT).identity


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"CONCORDAT_NAMESPACE": ""}, "CONCORDAT_NAMESPACE is not set"),
        ({"CONCORDAT_OPERATOR_IMAGE": ""}, "CONCORDAT_OPERATOR_IMAGE is not set"),
        ({"CONCORDAT_OPERATOR_IMAGE": "r/operator:latest"}, "by digest"),
        ({"CONCORDAT_LEARNING_IMAGE": "r/learning"}, "CONCORDAT_LEARNING_IMAGE is 'r/learning'"),
        ({"CONCORDAT_WRITES_PER_SECOND": "0"}, "CONCORDAT_WRITES_PER_SECOND is '0'"),
        ({"CONCORDAT_HTTP_PORT": "http"}, "CONCORDAT_HTTP_PORT is 'http'"),
    ],
)
def test_a_wrong_setting_is_named_with_its_remedy(change: dict[str, str], says: str) -> None:
    with pytest.raises(SettingsError, match=says.replace("(", r"\(")):
        Settings.from_environment({**ENVIRONMENT, **change})
