"""docs/reference/api.md, made of the same schemas as the CRDs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from concordat.api.conditions import Reason
from concordat.api.reasons_help import REASON_HELP
from concordat.api.resource import Resource
from concordat.api.schema import Schema
from concordat.api.types import API_VERSION

_LIMITS = (
    ("minLength", "at least {} characters"),
    ("maxLength", "at most {} characters"),
    ("minItems", "at least {} entries"),
    ("maxItems", "at most {} entries"),
    ("maxProperties", "at most {} entries"),
    ("minimum", "≥ {}"),
    ("maximum", "≤ {}"),
)
_OBVIOUS = (("minLength", 1),)


def reference(schemas: Mapping[type[Resource], Schema]) -> str:
    """Return the whole page as Markdown; deterministic."""
    lines = [
        "<!-- Generated from concordat/api by `make generate`; edit the models, not this file. -->",
        "# API reference",
        "",
        f"All kinds are `{API_VERSION}` and namespaced. `kubectl get concordat` lists all of them.",
        "Conditions are the API: match on them and on their [reasons](#reasons), never on `phase` or `summary`.",
        "",
        *(f"- [{kind.KIND.kind}](#{kind.KIND.kind.lower()}) (`{kind.KIND.short}`)" for kind in schemas),
        "",
    ]
    for kind, schema in schemas.items():
        lines += _kind(kind, schema)
    return "\n".join([*lines, *_reasons(), ""])


def _kind(kind: type[Resource], schema: Schema) -> Iterator[str]:
    names = kind.KIND
    yield from (f"## {names.kind}", "", schema["description"], "")
    yield f"`kubectl get {names.short}` prints {', '.join(c.name for c in names.columns)}."
    if names.selectable:
        yield f"Selectable with `--field-selector`: {', '.join(f'`{path[1:]}`' for path in names.selectable)}."
    for part in ("spec", "status"):
        yield from ("", f"### {names.kind} {part}", "")
        yield from ("| Field | Type | Default | Meaning |", "|---|---|---|---|")
        yield from _fields(schema["properties"][part], part)
    rules = list(_rules(schema, ""))
    if rules:
        yield from ("", f"### {names.kind} rules", "")
        yield from ("The API server refuses an object, or a change, that breaks one of these:", "")
        yield from rules
    yield ""


def _fields(schema: Schema, path: str) -> Iterator[str]:
    required = schema.get("required", [])
    for name, member in schema.get("properties", {}).items():
        inner, suffix = member, ""
        if member["type"] == "array":
            inner, suffix = member["items"], "[]"
        default = "required" if name in required else _default(member)
        where = f"{path}.{name}{suffix}"
        yield f"| `{where}` | {_cell(_type(member))} | {_cell(default)} | {_cell(member['description'])} |"
        yield from _fields(inner, where)


def _default(member: Schema) -> str:
    if "default" not in member or member["default"] == {}:
        return ""
    value = member["default"]
    return f"`{str(value).lower()}`" if isinstance(value, bool) else f"`{value}`"


def _type(member: Schema) -> str:
    kind = str(member["type"])
    if "enum" in member:
        return "one of " + ", ".join(f"`{value}`" for value in member["enum"])
    if member.get("format") == "date-time":
        return "time (RFC 3339)"
    if kind == "array":
        keys = member.get("x-kubernetes-list-map-keys")
        kind = f"list of {member['items']['type']}s" + (f", one per {', '.join(keys)}" if keys else "")
    elif "additionalProperties" in member:
        kind = f"map of {member['additionalProperties']['type']}s"
    limits = [text.format(member[key]) for key, text in _LIMITS if key in member and (key, member[key]) not in _OBVIOUS]
    if "pattern" in member:
        limits.append(f"`{member['pattern']}`")
    return "; ".join([kind, *limits])


def _rules(schema: Schema, path: str) -> Iterator[str]:
    for rule in schema.get("x-kubernetes-validations", ()):
        where = (path + rule.get("fieldPath", "")).lstrip(".") or "the object"
        yield f"- `{where}`: {rule['message']}."
    for name, member in schema.get("properties", {}).items():
        yield from _rules(member, f"{path}.{name}")


def _reasons() -> Iterator[str]:
    yield from ("## Reasons", "", "Where nothing is to be done, nothing is wrong.", "")
    yield from ("| Reason | Meaning | What to do |", "|---|---|---|")
    for reason in Reason:
        text = REASON_HELP[reason]
        yield f"| `{reason.value}` | {_cell(text.meaning)} | {_cell(text.remedy)} |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
