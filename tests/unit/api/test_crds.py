"""The generated CRDs: up to date, valid, and by the conventions that kube-api-linter checks for Go types."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from concordat.api import KINDS, crdgen
from concordat.api.crdgen import main, outputs, render_all, stale

ROOT = Path(__file__).parents[3]
FILES = sorted((ROOT / "crds").glob("*.yaml"))
CRDS = {path.stem: yaml.safe_load(path.read_text()) for path in FILES}

Schema = dict[str, Any]
Node = tuple[str, Schema]


def version(crd: Schema) -> Schema:
    (only,) = crd["spec"]["versions"]
    assert isinstance(only, dict)
    return only


def nodes(schema: Schema, path: str) -> Iterator[Node]:
    yield path, schema
    for name, member in schema.get("properties", {}).items():
        yield from nodes(member, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if key in schema:
            yield from nodes(schema[key], f"{path}[]")


def parts() -> Iterator[Node]:
    for file, crd in CRDS.items():
        root = version(crd)["schema"]["openAPIV3Schema"]
        for part in ("spec", "status"):
            yield f"{file}:{part}", root["properties"][part]


NODES = [node for path, schema in parts() for node in nodes(schema, path)]


def offenders(condition: Any) -> list[str]:
    return [path for path, node in NODES if condition(path, node)]


def test_generated_files_are_up_to_date() -> None:
    assert stale(ROOT) == []
    assert len(FILES) == len(KINDS)


def test_all_crds_make_one_stream_for_kubectl() -> None:
    """As `concordat crds` prints them."""
    rendered = render_all()
    assert rendered == {path.name: path.read_text() for path in FILES}
    stream = list(yaml.safe_load_all("".join(f"---\n{text}" for text in rendered.values())))
    assert [document["kind"] for document in stream] == ["CustomResourceDefinition"] * len(KINDS)


def test_generation_is_deterministic() -> None:
    assert list(outputs()) == list(outputs())


def test_check_reports_what_would_change_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Rendering all kinds seven times takes seconds.
    (kind,) = (kind for kind in KINDS if kind.KIND.plural in FILES[0].name)
    monkeypatch.setattr(crdgen, "KINDS", (kind,))
    assert main(["--root", str(tmp_path)]) == 0
    assert main(["--root", str(tmp_path), "--check"]) == 0
    victim = tmp_path / "crds" / FILES[0].name
    victim.write_text(victim.read_text().replace("maxLength: 40", "maxLength: 41"))
    left_over = tmp_path / "crds" / "concordat.dev_formerkinds.yaml"
    left_over.write_text("{}")
    before = victim.read_text()
    capsys.readouterr()
    assert main(["--root", str(tmp_path), "--check"]) == 1
    shown = capsys.readouterr()
    assert "+" in shown.out
    assert "maxLength: 40" in shown.out
    assert "make generate" in shown.err
    assert victim.read_text() == before
    assert main(["--root", str(tmp_path)]) == 0
    assert stale(tmp_path) == []
    assert not left_over.exists()


@pytest.mark.parametrize("crd", CRDS.values(), ids=CRDS)
def test_is_a_valid_manifest(crd: Schema) -> None:
    kubernetes_validate.validate(crd, "1.34", strict=True)


@pytest.mark.parametrize("crd", CRDS.values(), ids=CRDS)
def test_names_status_and_columns(crd: Schema) -> None:
    names, only = crd["spec"]["names"], version(crd)
    assert names["categories"] == ["concordat"]
    assert all(name.startswith("f") for name in names["shortNames"]), "short names must not shadow others"
    assert only["subresources"] == {"status": {}}
    columns = {column["name"]: column for column in only["additionalPrinterColumns"]}
    assert columns["Age"]["type"] == "date"
    assert columns["Message"]["priority"] == 1
    root = only["schema"]["openAPIV3Schema"]
    assert list(root["properties"]) == ["apiVersion", "kind", "metadata", "spec", "status"]
    assert root["properties"]["metadata"] == {"type": "object"}
    assert root["required"] == ["spec"]


@pytest.mark.parametrize("crd", CRDS.values(), ids=CRDS)
def test_columns_and_selectable_fields_exist(crd: Schema) -> None:
    root = version(crd)["schema"]["openAPIV3Schema"]
    paths = [c["jsonPath"] for c in version(crd)["additionalPrinterColumns"]]
    paths += [s["jsonPath"] for s in version(crd).get("selectableFields", [])]
    known = dict(nodes(root, ""))
    for path in paths:
        if path == ".metadata.creationTimestamp":
            continue
        head, _, member = path.partition("[?")
        assert head in known, path
        if member:
            assert f"{head}[].{member.rpartition('.')[2]}" in known, path


def test_every_field_is_described() -> None:
    def bad(path: str, node: Schema) -> bool:
        return not path.endswith("[]") and not node.get("description", "").strip()

    assert offenders(bad) == []


def test_no_floats_no_nullable_no_unions() -> None:
    def bad(path: str, node: Schema) -> bool:
        return node.get("type") not in ("object", "array", "string", "integer", "boolean") or bool(
            {"nullable", "anyOf", "oneOf", "allOf", "$ref", "title"} & set(node)
        )

    assert offenders(bad) == []


def test_everything_is_bounded() -> None:
    def bad(path: str, node: Schema) -> bool:
        match node["type"]:
            case "string":
                return "maxLength" not in node and "enum" not in node and node.get("format") != "date-time"
            case "integer":
                return not {"minimum", "maximum", "format"} <= set(node)
            case "array":
                return "maxItems" not in node or "x-kubernetes-list-type" not in node
            case "object":
                return "properties" not in node and "maxProperties" not in node
        return False

    assert offenders(bad) == []


def test_lists_of_objects_merge_by_required_keys() -> None:
    def bad(path: str, node: Schema) -> bool:
        if node["type"] != "array" or node["items"]["type"] != "object":
            return False
        keys = set(node.get("x-kubernetes-list-map-keys", ()))
        return node["x-kubernetes-list-type"] != "map" or not keys or not keys <= set(node["items"]["required"])

    assert offenders(bad) == []


def test_required_or_default_never_both() -> None:
    def bad(path: str, node: Schema) -> bool:
        return any("default" in node["properties"][name] for name in node.get("required", ()))

    assert offenders(bad) == []


def test_spec_objects_made_of_defaults_have_one_themselves() -> None:
    """Otherwise an absent object hides its members' defaults from CEL rules and from readers."""

    def bad(path: str, node: Schema) -> bool:
        made_of_defaults = [
            name
            for name, member in node.get("properties", {}).items()
            if member["type"] == "object"
            and any("default" in inner for inner in member.get("properties", {}).values())
            and "required" not in member
            and "default" not in member
        ]
        return ":spec" in path and bool(made_of_defaults)

    assert offenders(bad) == []


def test_status_is_optional_and_assumes_that_nobody_looked_yet() -> None:
    for path, schema in parts():
        if path.endswith(":status"):
            assert "required" not in schema, path
            assert "conditions" in schema["properties"], path
            assert "observedGeneration" in schema["properties"], path
            assert schema["default"] == {"observedGeneration": 0}, path
    assert offenders(lambda path, node: ":status." in path and "default" in node) == []


@pytest.mark.parametrize(
    ("rule", "bad"),
    [
        ("camelCase", lambda name, node: not name[0].islower() or "_" in name or "-" in name),
        ("times end in Time", lambda name, node: name.lower().endswith(("timestamp", "stamp"))),
        (
            "date-times are named so",
            # Those of a key are named as in a certificate.
            lambda name, node: (
                node.get("format") == "date-time" and not name.endswith(("Time", "eadline", "notBefore", "notAfter"))
            ),
        ),
        ("durations are seconds", lambda name, node: name.lower().endswith(("duration", "timeout", "period"))),
        ("references are ...Ref", lambda name, node: name.endswith(("Reference", "References"))),
        ("no booleans named is...", lambda name, node: name.startswith("is") and node["type"] == "boolean"),
    ],
)
def test_names(rule: str, bad: Any) -> None:
    fields = [(path, node) for path, node in NODES if "." in path.partition(":")[2] and not path.endswith("[]")]
    wrong = [path for path, node in fields if bad(path.rpartition(".")[2], node)]
    assert wrong == [], rule


def test_enum_values_are_camel_case() -> None:
    assert offenders(lambda path, node: any(not v[0].isupper() or not v.isalnum() for v in node.get("enum", ()))) == []


def test_conditions_are_the_standard_ones() -> None:
    for path, node in NODES:
        if path.endswith(".conditions"):
            members = ["type", "status", "observedGeneration", "lastTransitionTime", "reason", "message"]
            assert list(node["items"]["properties"]) == members, path
            assert node["x-kubernetes-list-map-keys"] == ["type"], path


def test_transition_rules_are_at_the_root_only() -> None:
    """One below an optional field is bypassed by removing that field."""
    below = offenders(lambda path, node: any("oldSelf" in r["rule"] for r in node.get("x-kubernetes-validations", ())))
    assert below == []


@pytest.mark.parametrize("crd", CRDS.values(), ids=CRDS)
def test_chart_copy_survives_uninstallation(crd: Schema) -> None:
    name = f"concordat.dev_{crd['spec']['names']['plural']}.yaml"
    text = (ROOT / "charts/concordat-crds/templates" / name).read_text()
    assert "{{" not in text
    copy = yaml.safe_load(text)
    assert copy["metadata"].pop("annotations") == {"helm.sh/resource-policy": "keep"}
    assert copy == crd
