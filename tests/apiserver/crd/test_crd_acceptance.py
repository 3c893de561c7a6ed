"""pydantic and a real API server accept the same objects.

Objects are drawn from the generated schemas and sent as dry runs with fieldValidation=Strict. Rules in CEL and the
uniqueness of list keys are the server's alone, so an object that only they refuse counts as accepted by the schema.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Hashable, Iterator
from datetime import UTC
from functools import cache
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from concordat.api import KINDS, Resource
from tests.apiserver.crd.server import MINIMAL, SCHEMAS, Api, Obj, Schema, manifest, schema_accepts, url

EXPENSIVE = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


# ---- objects that fit a schema


@cache
def valid(kind: type[Resource], part: str) -> st.SearchStrategy[Any]:
    """What `spec` or `status` may be. Made once: that takes as long as drawing from it ten times."""
    return fits(SCHEMAS[kind]["properties"][part])


def fits(schema: Schema) -> st.SearchStrategy[Any]:
    match schema["type"]:
        case "boolean":
            return st.booleans()
        case "integer":
            return st.integers(schema["minimum"], schema["maximum"])
        case "array":
            bounds = {"min_size": schema.get("minItems", 0), "max_size": min(schema["maxItems"], 3)}
            keys = schema.get("x-kubernetes-list-map-keys")
            unique: Callable[[Any], Hashable] | None = (lambda item: tuple(item[key] for key in keys)) if keys else None
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
        times = st.datetimes(timezones=st.just(UTC))
        return times.map(lambda time: time.isoformat().replace("+00:00", "Z"))
    low, high = schema.get("minLength", 0), schema["maxLength"]
    if "pattern" in schema:
        matching = st.from_regex(re.compile(schema["pattern"], re.ASCII), fullmatch=True)
        return matching.filter(lambda value: low <= len(value) <= high)
    return st.text(st.characters(codec="utf-8"), min_size=low, max_size=min(high, 30))


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
    obj = manifest(kind, data.draw(valid(kind, "spec")))
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
    status = data.draw(valid(kind, "status"))
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
    spec = data.draw(valid(kind, "spec"))
    path, constraint, new = data.draw(st.sampled_from(list(breaks(spec, SCHEMAS[kind]["properties"]["spec"]))))
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
