"""pydantic and a real API server accept the same objects; the rest, CEL rules, by a table of cases.

Objects are drawn from the generated schemas and sent as dry runs with fieldValidation=Strict. Rules in CEL and the
uniqueness of list keys are the server's alone, so an object that only they refuse counts as accepted by the schema.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from concordat.api import KINDS, FederationRound, Release, ReleaseChannel, Resource, Site, Update
from concordat.api.crdgen import root_schema
from concordat_devcluster.control_plane import ControlPlane
from kubernetes import config

Schema = dict[str, Any]
Obj = dict[str, Any]
EXPENSIVE = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
NAMESPACE = "acceptance"
DIGEST = "sha256:" + "0123456789abcdef" * 4
REF = {"repository": "digits/adapters", "digest": DIGEST}


@dataclass(frozen=True)
class Answer:
    """What the API server said."""

    code: int
    body: Obj

    @property
    def accepted(self) -> bool:
        """Whether it took the object."""
        return self.code < 300

    @property
    def causes(self) -> list[str]:
        """Its objections, field by field."""
        return [cause["message"] for cause in self.body.get("details", {}).get("causes", [])]

    @property
    def message(self) -> str:
        """Its answer in one text."""
        return str(self.body.get("message", ""))


class Api:
    """Plain requests for our kinds, in one namespace."""

    def __init__(self, kubeconfig: str) -> None:
        self._client = config.new_client_from_config(config_file=kubeconfig)

    def send(self, method: str, path: str, body: Obj | None = None, **query: str) -> Answer:
        """One request; dry runs and field validation are the caller's choice."""
        headers = {"Accept": "application/json", "Content-Type": "application/json"}
        if method == "PATCH":
            headers["Content-Type"] = "application/merge-patch+json"
        call = self._client.param_serialize(
            method, path, query_params=list(query.items()), header_params=headers, body=body
        )
        response = self._client.call_api(*call)
        return Answer(response.status, json.loads(response.read()))

    def try_create(self, obj: Obj) -> Answer:
        """A dry run that refuses unknown fields."""
        kind = next(kind for kind in KINDS if kind.KIND.kind == obj["kind"])
        return self.send("POST", url(kind), obj, dryRun="All", fieldValidation="Strict")

    def create(self, kind: type[Resource], spec: Obj, name: str) -> None:
        """An object that stays."""
        answer = self.send("POST", url(kind), manifest(kind, spec, name))
        assert answer.accepted, answer.message


def url(kind: type[Resource], *rest: str) -> str:
    return "/".join(["/apis/concordat.dev/v1alpha1/namespaces", NAMESPACE, kind.KIND.plural, *rest])


def manifest(kind: type[Resource], spec: Obj, name: str = "one") -> Obj:
    return {
        "apiVersion": "concordat.dev/v1alpha1",
        "kind": kind.KIND.kind,
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": spec,
    }


@pytest.fixture(scope="module")
def api(api_server: ControlPlane) -> Api:
    api_server.apply_crds()
    api = Api(str(api_server.kubeconfig))
    api.send("POST", "/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})
    return api


# ---- objects that fit a schema


def fits(schema: Schema) -> st.SearchStrategy[Any]:
    match schema["type"]:
        case "boolean":
            return st.booleans()
        case "integer":
            return st.integers(schema["minimum"], schema["maximum"])
        case "array":
            bounds = {"min_size": schema.get("minItems", 0), "max_size": min(schema["maxItems"], 3)}
            keys = schema.get("x-kubernetes-list-map-keys")
            unique = (lambda item: tuple(item[key] for key in keys)) if keys else None
            if schema["x-kubernetes-list-type"] == "set":
                unique = str
            return st.lists(fits(schema["items"]), unique_by=unique, **bounds)
        case "object" if "additionalProperties" in schema:
            # Of a label and of a measurement alike.
            keys_ = st.from_regex(r"[a-z][A-Za-z0-9]{0,6}", fullmatch=True)
            return st.dictionaries(keys_, fits(schema["additionalProperties"]), max_size=3)
        case "object":
            members = {name: fits(member) for name, member in schema["properties"].items()}
            required = schema.get("required", [])
            return st.fixed_dictionaries(
                {name: members[name] for name in required},
                optional={name: member for name, member in members.items() if name not in required},
            )
    return text(schema)


def text(schema: Schema) -> st.SearchStrategy[str]:
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if schema.get("format") == "date-time":
        times = st.datetimes(min_value=datetime(1, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
        return times.map(lambda time: time.isoformat().replace("+00:00", "Z"))
    low, high = schema.get("minLength", 0), schema["maxLength"]
    if "pattern" in schema:
        matching = st.from_regex(re.compile(schema["pattern"], re.ASCII), fullmatch=True)
        return matching.filter(lambda value: low <= len(value) <= high)
    return st.text(st.characters(codec="utf-8"), min_size=low, max_size=min(high, 30))


def cel_messages(schema: Schema) -> Iterator[str]:
    for rule in schema.get("x-kubernetes-validations", ()):
        yield rule["message"]
    for child in (*schema.get("properties", {}).values(), schema.get("items"), schema.get("additionalProperties")):
        if isinstance(child, dict):
            yield from cel_messages(child)


SCHEMAS = {kind: root_schema(kind) for kind in KINDS}
CEL = {kind: set(cel_messages(schema)) for kind, schema in SCHEMAS.items()}


def schema_accepts(kind: type[Resource], answer: Answer) -> bool:
    """Accepted, or refused by nothing but rules in CEL."""
    by_rules = bool(answer.causes) and all(any(m in cause for m in CEL[kind]) for cause in answer.causes)
    return answer.accepted or by_rules


def unknown(value: Any, schema: Schema) -> bool:
    """Whether there is a field the schema does not have; models ignore those, strict servers do not."""
    if isinstance(value, dict) and "properties" in schema:
        members = schema["properties"]
        return any(k not in members or unknown(v, members[k]) for k, v in value.items())
    if isinstance(value, list) and "items" in schema:
        return any(unknown(item, schema["items"]) for item in value)
    return False


def model_accepts(kind: type[Resource], obj: Obj) -> bool:
    try:
        kind.model_validate_json(json.dumps(obj))
    except ValidationError:
        return False
    return not any(unknown(obj[part], SCHEMAS[kind]["properties"][part]) for part in ("spec", "status") if part in obj)


@pytest.mark.parametrize("kind", KINDS)
@EXPENSIVE
@given(data=st.data())
def test_both_accept_valid_specs(api: Api, kind: type[Resource], data: st.DataObject) -> None:
    obj = manifest(kind, data.draw(fits(SCHEMAS[kind]["properties"]["spec"])))
    answer = api.try_create(obj)
    assert schema_accepts(kind, answer), answer.message
    model = kind.model_validate_json(json.dumps(obj))
    assert kind.model_validate(model.wire()) == model
    if answer.accepted:
        stored = kind.model_validate(answer.body)
        assert stored.model_dump()["spec"] == model.model_dump()["spec"], "defaults differ"


@pytest.mark.parametrize("kind", KINDS)
@EXPENSIVE
@given(data=st.data())
def test_both_accept_valid_statuses(api: Api, kind: type[Resource], data: st.DataObject) -> None:
    status = data.draw(fits(SCHEMAS[kind]["properties"]["status"]))
    name = f"status-{kind.KIND.plural}"
    if (found := api.send("GET", url(kind, name))).code == 404:
        api.create(kind, MINIMAL[kind], name)
        found = api.send("GET", url(kind, name))
    obj = {**manifest(kind, MINIMAL[kind], name), "status": status}
    # An update names the version it replaces; a dry run leaves that version as it is.
    obj["metadata"]["resourceVersion"] = found.body["metadata"]["resourceVersion"]
    answer = api.send("PUT", url(kind, name, "status"), obj, dryRun="All", fieldValidation="Strict")
    assert answer.accepted, answer.message
    written = kind.model_validate_json(json.dumps(obj)).model_dump()["status"]
    assert kind.model_validate(answer.body).model_dump()["status"] == written


# ---- objects with one constraint broken

Break = tuple[tuple[str | int, ...], str, Any]


def breaks(value: Any, schema: Schema, path: tuple[str | int, ...] = ()) -> Iterator[Break]:
    """Every way to break one constraint of this value: where, which, and what to put there."""
    match schema["type"]:
        case "boolean":
            yield path, "type", "perhaps"
        case "integer":
            yield from ((path, "maximum", schema["maximum"] + 1), (path, "minimum", schema["minimum"] - 1))
            yield path, "type", "many"
        case "string":
            yield path, "type", {}
            if "enum" in schema:
                yield path, "enum", "Nonsense"
            elif schema.get("format") == "date-time":
                yield from ((path, "format", "tomorrow"), (path, "format", "2026-11-24"))
            else:
                yield path, "maxLength", (value or "a") + "a" * schema["maxLength"]
                if schema.get("minLength"):
                    yield path, "minLength", ""
                if "pattern" in schema:
                    yield path, "pattern", "!" * schema.get("minLength", 1)
        case "array":
            yield path, "type", "all"
            for index, item in enumerate(value):
                yield from breaks(item, schema["items"], (*path, index))
            if value:
                yield path, "maxItems", value[:1] * (schema["maxItems"] + 1)
            if schema.get("minItems"):
                yield path, "minItems", []
        case "object" if "additionalProperties" in schema:
            yield path, "type", []
            yield path, "maxProperties", {f"key{n}": "x" for n in range(schema["maxProperties"] + 1)}
        case "object":
            if path:
                yield path, "type", []
            yield (*path, "nonsense"), "unknown", 1
            for name, member in schema["properties"].items():
                if name in value:
                    yield from breaks(value[name], member, (*path, name))
                    if name in schema.get("required", []):
                        yield (*path, name), "required", ...


def replaced(value: Any, path: tuple[str | int, ...], new: Any) -> Any:
    whole = copy.deepcopy(value)
    target = whole
    for step in path[:-1]:
        target = target[step]
    if new is ...:
        del target[path[-1]]
    else:
        target[path[-1]] = new
    return whole


@pytest.mark.parametrize("kind", KINDS)
@EXPENSIVE
@given(data=st.data())
def test_both_refuse_one_broken_constraint(api: Api, kind: type[Resource], data: st.DataObject) -> None:
    schema = SCHEMAS[kind]["properties"]["spec"]
    spec = data.draw(fits(schema))
    path, constraint, new = data.draw(st.sampled_from(list(breaks(spec, schema))))
    obj = manifest(kind, replaced(spec, path, new))
    where = f"{constraint} at {path}"
    assert not model_accepts(kind, obj), f"pydantic accepts a broken {where}"
    assert not schema_accepts(kind, api.try_create(obj)), f"the server accepts a broken {where}"


def constraints(schema: Schema) -> Iterator[str]:
    """The constraining keywords of a schema, not the names of its fields."""
    yield from (word for word in schema if re.fullmatch(r"m[ia][nx]\w+|pattern|enum", word))
    for child in (*schema.get("properties", {}).values(), schema.get("items"), schema.get("additionalProperties")):
        if isinstance(child, dict):
            yield from constraints(child)


def test_every_constraint_that_is_used_is_broken_by_the_mutator() -> None:
    """Otherwise a new keyword would go untested."""
    used = {word for kind in KINDS for word in constraints(SCHEMAS[kind]["properties"]["spec"])}
    assert used <= {
        "minLength",
        "maxLength",
        "minimum",
        "maximum",
        "minItems",
        "maxItems",
        "maxProperties",
        "pattern",
        "enum",
    }


# ---- rules in CEL

PARENT = {"parent": {"releaseRef": {"name": "genesis"}}}
ROUND: Obj = {"federation": "digits", **PARENT}
ROUND_REF = {"name": "round-1", "namespace": "concordat", "uid": "12345678-aaaa"}
SITE: Obj = {"federations": [{"name": "digits", "dataClaim": "data"}], "workspaceClaim": "workspace"}
RELEASE: Obj = {"federation": "digits", "sequence": 1, "base": REF, "adapter": REF, "roundRef": ROUND_REF}
CHANNEL: Obj = {"federation": "digits", "follow": "Approved"}
UPDATE: Obj = {
    "federation": "digits",
    "roundRef": ROUND_REF,
    "site": "site-a",
    "contract": REF,
    "contractDigest": DIGEST,
    "consentDeadline": "2026-11-24T12:00:00Z",
    "submissionDeadline": "2026-11-24T13:00:00Z",
}
MINIMAL = {FederationRound: ROUND, Site: SITE, Update: UPDATE, Release: RELEASE, ReleaseChannel: CHANNEL}

REFUSED = [
    (FederationRound, ROUND | {"parent": {}}, "exactly one of releaseRef and channelRef"),
    (
        FederationRound,
        ROUND | {"parent": {"releaseRef": {"name": "a"}, "channelRef": {"name": "b"}}},
        "exactly one of releaseRef and channelRef",
    ),
    (FederationRound, ROUND | {"quorum": 5, "sites": {"maxSites": 4}}, "quorum must not exceed sites.maxSites"),
    (FederationRound, ROUND | {"quorum": 101}, "quorum must not exceed sites.maxSites"),
    (
        FederationRound,
        ROUND | {"deadlines": {"consentSeconds": 60, "submissionSeconds": 59}},
        "consentSeconds must not exceed",
    ),
    (FederationRound, ROUND | {"deadlines": {"submissionSeconds": 299}}, "consentSeconds must not exceed"),
    (FederationRound, ROUND | {"quorum": 2}, "quorum must be at least 2f+1"),
    (FederationRound, ROUND | {"quorum": 4, "aggregation": {"maxFaultySites": 2}}, "quorum must be at least 2f+1"),
    (FederationRound, ROUND | {"quorum": 4, "aggregation": {"rule": "Krum"}}, "for Krum and MultiKrum 2f+3"),
    (FederationRound, ROUND | {"quorum": 6, "aggregation": {"rule": "Bulyan"}}, "for Bulyan 4f+3"),
    (
        FederationRound,
        ROUND | {"quorum": 4, "aggregation": {"preAggregation": "Bucketing"}},
        "with Bucketing twice that less one",
    ),
    (FederationRound, ROUND | {"aggregation": {"rule": "Mean"}}, "set aggregation.preAggregation to None"),
    (
        FederationRound,
        ROUND | {"aggregation": {"rule": "FLTrust", "preAggregation": "None"}},
        "referenceSite is set for FLTrust",
    ),
    (FederationRound, ROUND | {"aggregation": {"referenceSite": "hub"}}, "referenceSite is set for FLTrust"),
    (FederationRound, ROUND | {"recipe": {"trainFactor": "Both"}}, "trainFactor is Both exactly where"),
    (FederationRound, ROUND | {"aggregation": {"lora": "Svd"}}, "trainFactor is Both exactly where"),
    (
        FederationRound,
        ROUND | {"recipe": {"trainFactor": "A"}, "aggregation": {"lora": "FrozenA"}},
        "set recipe.trainFactor to B",
    ),
    (
        FederationRound,
        ROUND | {"recipe": {"trainFactor": "Both"}, "aggregation": {"lora": "Svd", "rule": "MeaMed"}},
        "Svd takes TrimmedMean",
    ),
    (
        FederationRound,
        ROUND | {"recipe": {"trainFactor": "Both"}, "aggregation": {"lora": "FactorMean"}},
        "for TrimmedMean use Svd",
    ),
    (FederationRound, ROUND | {"sites": {"matchLabels": {"not a key": "x"}}}, "every key must match"),
    (Site, SITE | {"role": "Evaluator", "channel": "stable"}, "an Evaluator follows no channel"),
    (Release, RELEASE | {"sequence": 0}, "sequence 0 is the start of a federation"),
    (Release, {k: v for k, v in RELEASE.items() if k != "roundRef"}, "sequence 0 is the start of a federation"),
    (ReleaseChannel, {"federation": "digits"}, "exactly one of release and follow"),
    (ReleaseChannel, CHANNEL | {"release": "r-1"}, "exactly one of release and follow"),
]
ACCEPTED = [
    *MINIMAL.items(),
    (FederationRound, ROUND | {"quorum": 1, "aggregation": {"rule": "Mean", "preAggregation": "None"}}),
    (FederationRound, ROUND | {"quorum": 5, "aggregation": {"rule": "Krum"}}),
    (FederationRound, ROUND | {"quorum": 7, "aggregation": {"rule": "Bulyan", "preAggregation": "None"}}),
    (FederationRound, ROUND | {"quorum": 5, "aggregation": {"preAggregation": "Bucketing"}}),
    (FederationRound, ROUND | {"recipe": {"trainFactor": "Both"}, "aggregation": {"lora": "Svd"}}),
    (FederationRound, ROUND | {"quorum": 1, "aggregation": {"maxFaultySites": 0}}),
    (FederationRound, ROUND | {"sites": {"matchLabels": {"concordat.dev/tier": "", "zone": "a"}}}),
    (Site, SITE | {"role": "Evaluator"}),
    (Release, {k: v for k, v in RELEASE.items() if k != "roundRef"} | {"sequence": 0}),
    (ReleaseChannel, {"federation": "digits", "release": "r-1"}),
]


@pytest.mark.parametrize(("kind", "spec", "words"), REFUSED)
def test_rules_refuse_with_a_remedy(api: Api, kind: type[Resource], spec: Obj, words: str) -> None:
    answer = api.try_create(manifest(kind, spec))
    assert answer.code == 422, answer.message
    assert words in answer.message
    assert schema_accepts(kind, answer)


@pytest.mark.parametrize(("kind", "spec"), ACCEPTED)
def test_rules_let_pass(api: Api, kind: type[Resource], spec: Obj) -> None:
    answer = api.try_create(manifest(kind, spec))
    assert answer.accepted, answer.message


def test_a_rounds_name_leaves_room_for_the_names_made_of_it(api: Api) -> None:
    assert api.try_create(manifest(FederationRound, ROUND, "r" * 40)).accepted
    assert "at most 40 characters" in api.try_create(manifest(FederationRound, ROUND, "r" * 41)).message


def test_one_entry_per_federation(api: Api) -> None:
    twice = SITE | {"federations": SITE["federations"] * 2}
    assert "Duplicate value" in api.try_create(manifest(Site, twice)).message


# ---- what cannot change

OTHER = {
    Update: ("site", "site-b", "cannot change"),
    Release: ("sequence", 2, "cannot change"),
    Site: ("role", "Evaluator", "role cannot change"),
    ReleaseChannel: ("federation", "letters", "federation cannot change"),
    FederationRound: ("federation", "letters", "federation cannot change"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_identity_never_changes(api: Api, kind: type[Resource]) -> None:
    field, value, words = OTHER[kind]
    name = f"fixed-{kind.KIND.plural}"
    api.create(kind, MINIMAL[kind], name)
    answer = api.send("PATCH", url(kind, name), {"spec": {field: value}})
    assert answer.code == 422
    assert words in answer.message
    assert api.send("PATCH", url(kind, name), {"metadata": {"labels": {"a": "b"}}}).accepted


@pytest.mark.parametrize("kind", [Update, Release])
def test_requests_do_not_grow_or_shrink(api: Api, kind: type[Resource]) -> None:
    name = f"whole-{kind.KIND.plural}"
    api.create(kind, MINIMAL[kind], name)
    addition: Obj = {"lineage": REF} if kind is Release else {"consentDeadline": "2026-11-24T12:30:00Z"}
    assert "cannot change" in api.send("PATCH", url(kind, name), {"spec": addition}).message


CONTRACT = {"contract": {"artifact": REF, "sha256": DIGEST, "contractedTime": "2026-11-24T12:00:00Z"}}
CHANGES: dict[str, Any] = {
    "parent": {"releaseRef": {"name": "other"}},
    "sites": {"matchLabels": {"a": "b"}},
    "quorum": 4,
    "deadlines": {"consentSeconds": 301},
    "budget": {"maxSteps": 201},
    "recipe": {"seed": 1},
    "gates": {"maxRegressionPpm": 1},
    "screening": {"clipNorm": "11"},
    "aggregation": {"rule": "Mean", "preAggregation": "None"},
    "evaluation": {"minImprovementPpm": 1},
}


def test_a_round_can_be_corrected_until_it_is_contracted(api: Api) -> None:
    api.create(FederationRound, ROUND, "open")
    for field, value in CHANGES.items():
        assert api.send("PATCH", url(FederationRound, "open"), {"spec": {field: value}}).accepted, field


@pytest.fixture(scope="module")
def contracted(api: Api) -> str:
    api.create(FederationRound, ROUND, "contracted")
    answer = api.send("PATCH", url(FederationRound, "contracted", "status"), {"status": CONTRACT})
    assert answer.accepted, answer.message
    return url(FederationRound, "contracted")


@pytest.mark.parametrize("field", CHANGES)
def test_a_contracted_round_is_frozen(api: Api, contracted: str, field: str) -> None:
    answer = api.send("PATCH", contracted, {"spec": {field: CHANGES[field]}})
    assert answer.code == 422
    assert f"{field} cannot change: the contract is signed" in answer.message


@pytest.mark.parametrize("field", [field for field in CHANGES if field != "parent"])
def test_a_contracted_round_loses_no_field(api: Api, contracted: str, field: str) -> None:
    """Removing one brings its default back, which equals what the contract says."""
    answer = api.send("PATCH", contracted, {"spec": {field: None}})
    assert answer.accepted, answer.message
    assert answer.body["spec"][field]


def test_a_contracted_round_can_be_suspended(api: Api, contracted: str) -> None:
    assert api.send("PATCH", contracted, {"spec": {"suspend": True}}).accepted


@pytest.mark.parametrize(
    "status",
    [None, {"contract": None}, {"contract": {**CONTRACT["contract"], "sha256": "sha256:" + "f" * 64}}],
    ids=["status null", "contract null", "another contract"],
)
def test_a_contract_is_not_taken_back(api: Api, contracted: str, status: Any) -> None:
    """Without this rule whoever may write the status could thaw the spec."""
    answer = api.send("PATCH", f"{contracted}/status", {"status": status})
    assert answer.code == 422
    assert "a signed contract cannot be withdrawn or replaced" in answer.message


def test_status_writes_leave_the_generation(api: Api, contracted: str) -> None:
    before = api.send("GET", contracted).body
    after = api.send("PATCH", f"{contracted}/status", {"status": {"summary": "1/5"}}).body
    assert after["metadata"]["generation"] == before["metadata"]["generation"]
    assert after["status"]["contract"] == CONTRACT["contract"]


def test_status_on_the_main_resource_is_ignored(api: Api) -> None:
    obj = manifest(Update, UPDATE, "sneaky") | {"status": {"verdict": {"reason": "Verified"}}}
    assert "status" not in api.send("POST", url(Update), obj).body


def test_selectable_fields_select(api: Api) -> None:
    api.create(Update, UPDATE, "selected")
    found = api.send("GET", url(Update), fieldSelector="spec.site=site-a,spec.roundRef.name=round-1").body["items"]
    assert "selected" in {item["metadata"]["name"] for item in found}
    assert api.send("GET", url(Update), fieldSelector="spec.site=site-z").body["items"] == []
