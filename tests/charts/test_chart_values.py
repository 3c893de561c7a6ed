"""Wrong values are refused before anything is installed, with a message that names the field."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.helm import Helm

ROOT = Path(__file__).resolve().parents[2]
DIGEST = "sha256:" + "a" * 64
ABSENT = object()

CASES: list[tuple[str, str, Any, str]] = [
    # profile, field, value, what helm says
    ("operator", "imagee", {}, "at '': additional properties 'imagee' not allowed"),
    ("operator", "image.tag", "latest", "at '/image': additional properties 'tag' not allowed"),
    ("operator", "image", ABSENT, "at '/image/digest'"),
    ("operator", "image.digest", "latest", "at '/image/digest': 'latest' does not match pattern"),
    ("operator", "image.digest", DIGEST[:-1], "at '/image/digest'"),
    ("operator", "image.repository", "Registry/operator", "at '/image/repository'"),
    ("operator", "image.repository", f"registry/operator@{DIGEST}", "at '/image/repository'"),
    ("operator", "learningImage", "registry/learning:1.0", "at '/learningImage'"),
    ("operator", "runtimeClassName", "Not A Name", "at '/runtimeClassName'"),
    ("operator", "registry.image", ABSENT, "at '/registry/image': minLength: got 0, want 1"),
    ("operator", "registry.image", "registry:3", "at '/registry/image'"),
    ("operator", "registry.enabled", "yes", "at '/registry/enabled': got string, want boolean"),
    ("operator", "registry.enabled", False, "at '/registryUrl': minLength: got 0, want 1"),
    ("operator", "registry.storage.size", "10GB", "at '/registry/storage/size'"),
    ("operator", "registry.storage.sise", "10Gi", "additional properties 'sise' not allowed"),
    ("operator", "registryUrl", "artifacts.example", "at '/registryUrl'"),
    ("operator", "registryUrl", "https://artifacts.example/v2/", "at '/registryUrl'"),
    ("operator", "historyLimit", 2, "at '/historyLimit': minimum: got 2, want 3"),
    ("operator", "replicas", 3, "at '/replicas': maximum: got 3, want 2"),
    ("operator", "replicas", "2", "at '/replicas': got string, want integer"),
    ("operator", "replicas", 0, "at '/replicas': minimum: got 0, want 1"),
    ("operator", "resources.request", {}, "at '/resources': additional properties 'request' not allowed"),
    ("operator", "tolerations", [{"effect": "Never"}], "at '/tolerations/0/effect'"),
    ("operator", "imagePullSecrets", ["pull"], "at '/imagePullSecrets/0': got string, want object"),
    ("operator", "podAnnotations", {"a": 1}, "at '/podAnnotations/a': got number, want string"),
    ("operator", "admissionPolicy.enabled", "false", "at '/admissionPolicy/enabled': got string, want boolean"),
    ("operator", "networkPolicy", True, "at '/networkPolicy'"),
    ("site-trainer", "rolle", "Trainer", "additional properties 'rolle' not allowed"),
    ("site-trainer", "role", "Observer", "at '/role': value must be one of 'Trainer', 'Evaluator'"),
    ("site-trainer", "federations", ABSENT, "at '/federations': minItems: got 0, want 1"),
    ("site-trainer", "federations", [{"name": "digits"}], "at '/federations/0': missing property 'dataClaim'"),
    ("site-trainer", "federations", [{"name": "Digits", "dataClaim": "data"}], "at '/federations/0/name'"),
    (
        "site-trainer",
        "federations",
        [{"name": "digits", "dataClaim": "state"}],
        "at '/federations/0/dataClaim': 'not' failed",
    ),
    ("site-trainer", "channel", "Stable!", "at '/channel'"),
    ("site-evaluator", "channel", "stable", "at '/channel': value must be ''"),
    ("site-trainer", "labels", {"region": "not a label"}, "at '/labels/region'"),
    ("site-trainer", "image.digest", ABSENT, "at '/image/digest'"),
    ("site-trainer", "operator.namespce", "hub", "at '/operator': additional properties 'namespce' not allowed"),
    ("site-trainer", "trust", ABSENT, "at '/trust/contractKeys': minItems: got 0, want 1"),
    ("site-trainer", "trust.contractKeys", ["ssh-ed25519 AAAA"], "at '/trust/contractKeys/0'"),
    ("site-trainer", "trust.evaluators", ["evaluator"], "at '/trust/evaluators': got array, want object"),
    ("site-trainer", "policy.consent.maxStep", 5, "at '/policy/consent': additional properties 'maxStep' not allowed"),
    ("site-trainer", "policy.consent.maxSteps", "500", "at '/policy/consent/maxSteps': got string, want integer"),
    ("site-trainer", "policy.consent.maxSteps", 0, "at '/policy/consent/maxSteps': minimum: got 0, want 1"),
    ("site-trainer", "policy.consent.maxWallSecondsPerDay", 0, "at '/policy/consent/maxWallSecondsPerDay'"),
    ("site-trainer", "policy.consent.hours.from", "8:00", "at '/policy/consent/hours/from'"),
    ("site-trainer", "policy.consent.hours.timeZone", ABSENT, "at '/policy/consent/hours': missing property"),
    ("site-trainer", "policy.allowedBases", [], "at '/policy/allowedBases': minItems: got 0, want 1"),
    ("site-trainer", "policy.allowedBases", ["digits/base"], "at '/policy/allowedBases/0'"),
    ("site-trainer", "policy.requiredRuntimeClass", "", "at '/policy/requiredRuntimeClass'"),
    ("site-trainer", "policy.consent.maxClipNorm", 10, "at '/policy/consent/maxClipNorm': got number, want string"),
    ("site-trainer", "policy.consent.allowedImages", ["learning:1"], "at '/policy/consent/allowedImages/0'"),
    ("site-trainer", "policy.consent.allowedImages", [], "at '/policy/consent/allowedImages': minItems: got 0, want 1"),
    ("site-trainer", "policy.judging", ABSENT, "at '/policy/judging/image'"),
    ("site-trainer", "policy.judging.minQualityPpm", 0, "at '/policy/judging/minQualityPpm': minimum: got 0, want 1"),
    ("site-trainer", "policy.judging.image", "learning:1", "at '/policy/judging/image'"),
    ("site-trainer", "policy.gates.maxRegressionPpm", 1_000_001, "at '/policy/gates/maxRegressionPpm'"),
    ("site-trainer", "policy.adoption.mode", "Sometimes", "at '/policy/adoption/mode': value must be one of"),
    ("site-trainer", "keyVersion", 0, "at '/keyVersion': minimum: got 0, want 1"),
    ("site-trainer", "workspace.size", 5, "at '/workspace/size': got number, want string"),
    ("site-trainer", "networkPolicy.apiServerPorts", [0], "at '/networkPolicy/apiServerPorts/0'"),
]


@pytest.mark.parametrize(
    ("profile", "field", "value", "says"),
    CASES,
    ids=[f"{profile} {field}={'absent' if value is ABSENT else value}"[:60] for profile, field, value, _ in CASES],
)
def test_refused(helm: Helm, values: Callable[[str], Any], profile: str, field: str, value: Any, says: str) -> None:
    changed = copy.deepcopy(values(profile))
    *above, last = field.split(".")
    inner = changed
    for name in above:
        inner = inner.setdefault(name, {})
    if value is ABSENT:
        del inner[last]
    else:
        inner[last] = value
    done = helm.template(f"concordat-{profile.partition('-')[0]}", changed, "site-a")
    assert done.returncode != 0
    assert says in done.stderr


def test_the_crds_have_nothing_to_set(helm: Helm) -> None:
    done = helm.template("concordat-crds", {"keep": False}, "concordat")
    assert "additional properties 'keep' not allowed" in done.stderr


@pytest.mark.parametrize("chart", ["concordat-operator", "concordat-site"])
def test_nothing_is_installed_by_accident(helm: Helm, chart: str) -> None:
    done = helm.template(chart, {}, "concordat")
    assert done.returncode != 0
    assert "at '/image/digest'" in done.stderr


@pytest.mark.parametrize("chart", ["concordat-operator", "concordat-site"])
def test_every_value_is_explained(chart: str) -> None:
    """A blank line, a comment, a key: that is how values.yaml is read."""
    lines = (ROOT / "charts" / chart / "values.yaml").read_text().splitlines()
    documented = {line.partition(":")[0] for above, line in zip(["", *lines], lines, strict=False) if above[:1] == "#"}
    top = yaml.safe_load("\n".join(lines)).keys()
    assert top - documented <= {"imagePullSecrets", "resources", "nodeSelector", "tolerations", "podAnnotations"}


@pytest.mark.parametrize("chart", ["concordat-operator", "concordat-site", "concordat-crds"])
def test_chart_metadata(chart: str) -> None:
    metadata = yaml.safe_load((ROOT / "charts" / chart / "Chart.yaml").read_text())
    assert metadata["name"] == chart
    assert metadata["kubeVersion"].endswith("-0"), "admits vendors' version suffixes"
    project = (ROOT / "pyproject.toml").read_text()
    assert f'version = "{metadata["appVersion"]}"' in project
