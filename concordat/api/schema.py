"""Structural schemas for CRDs out of pydantic models.

Kubernetes takes a subset of OpenAPI: no references, no unions, no nullable members without need. Whatever a model says
that has no exact counterpart is refused here, so that the CRD never accepts what the model would not.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

Schema = dict[str, Any]

_KEPT = (
    "description",
    "type",
    "format",
    "enum",
    "default",
    "minLength",
    "maxLength",
    "pattern",
    "minimum",
    "maximum",
    "minItems",
    "maxItems",
    "minProperties",
    "maxProperties",
    "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-validations",
)
_DROPPED = ("title", "examples", "properties", "required", "items", "additionalProperties", "patternProperties")
_PEER_ONLY = ("const", "exclusiveMinimum", "exclusiveMaximum", "propertyNames")


class SchemaError(Exception):
    """A model uses something that a structural schema cannot say; the message names the field."""


def structural(model: type[BaseModel], member: str, *, defaults: bool = True) -> Schema:
    """Return the structural schema of one member of a model, by its name on the wire, in the model's field order.

    `defaults` False leaves every default out (a status is observed, nothing in it is assumed). Raises SchemaError.
    """
    raw = model.model_json_schema(by_alias=True, mode="validation")
    return _Walk(raw.get("$defs", {}), defaults).convert(raw["properties"][member], f".{member}", ())


class _Walk:
    def __init__(self, definitions: Schema, defaults: bool) -> None:
        self._definitions = definitions
        self._defaults = defaults

    def convert(self, raw: Schema, path: str, seen: tuple[str, ...]) -> Schema:
        schema, seen, optional = self._resolve(raw, path, seen)
        unknown = set(schema) - {*_KEPT, *_DROPPED, *_PEER_ONLY}
        if unknown:
            raise SchemaError(f"{path}: a structural schema has no {', '.join(sorted(unknown))}; say it otherwise")
        out = {key: schema[key] for key in _KEPT if key in schema}
        if "const" in schema:
            out["enum"] = [schema["const"]]
        match schema.get("type"):
            case "object":
                self._object(schema, out, path, seen, optional)
            case "array":
                out["items"] = self.convert(schema.get("items", {}), f"{path}[]", seen)
            case "integer":
                _integer(schema, out)
            case "string" | "boolean":
                pass
            case "number":
                raise SchemaError(f"{path}: floats are not allowed in the API; use an integer or a decimal string")
            case other:
                raise SchemaError(f"{path}: type {other!r} is not supported; use one plain type")
        if not self._defaults or (out.get("default", ...) in (None, [], {}) and out["type"] != "object"):
            out.pop("default", None)
        return out

    def _resolve(self, raw: Schema, path: str, seen: tuple[str, ...]) -> tuple[Schema, tuple[str, ...], bool]:
        """Replace references and `X | None` by X; members beside a reference win over the referenced."""
        schema, optional = dict(raw), False
        while True:
            if "$ref" in schema:
                name = schema.pop("$ref").rsplit("/", 1)[-1]
                if name in seen:
                    raise SchemaError(f"{path}: {name} contains itself; a structural schema cannot recur")
                seen = (*seen, name)
                schema = {**self._definitions[name], **schema}
            elif "anyOf" in schema:
                choices = schema.pop("anyOf")
                concrete = [choice for choice in choices if choice != {"type": "null"}]
                if len(concrete) != 1:
                    raise SchemaError(f"{path}: unions are not allowed; use optional members and a rule")
                optional = optional or len(concrete) < len(choices)
                schema = {**concrete[0], **schema}
            else:
                if schema.get("default", ...) is None:
                    del schema["default"]
                schema.pop("$defs", None)
                return schema, seen, optional

    def _object(self, schema: Schema, out: Schema, path: str, seen: tuple[str, ...], optional: bool) -> None:
        if "properties" not in schema:
            _map(schema, out, path)
            values = schema.get("additionalProperties") or next(
                iter(schema.get("patternProperties", {}).values()), None
            )
            if not isinstance(values, dict):
                raise SchemaError(f"{path}: a map needs a type for its values")
            out["additionalProperties"] = self.convert(values, f"{path}{{}}", seen)
            return
        required = schema.get("required", [])
        out["properties"] = {}
        for name, member in schema["properties"].items():
            child = self.convert(member, f"{path}.{name}", seen)
            if "description" not in child:
                raise SchemaError(f"{path}.{name}: a field needs a docstring; it becomes its description")
            _, _, may_be_absent = self._resolve(member, path, ())
            whole_default = "properties" in child and "required" not in child and not may_be_absent
            if self._defaults and whole_default and name not in required:
                child["default"] = {}
            out["properties"][name] = child
        if required:
            out["required"] = list(required)


def _integer(schema: Schema, out: Schema) -> None:
    for key, bound, step in (("exclusiveMinimum", "minimum", 1), ("exclusiveMaximum", "maximum", -1)):
        if key in schema:
            out[bound] = schema[key] + step
    small = out.get("minimum", -(2**63)) >= -(2**31) and out.get("maximum", 2**63) < 2**31
    out["format"] = "int32" if small else "int64"


def _map(schema: Schema, out: Schema, path: str) -> None:
    """Bounds on keys become a CEL rule: structural schemas have no word for them."""
    names = dict(schema.get("propertyNames", {}))
    patterns = list(schema.get("patternProperties", {}))
    if len(patterns) > 1:
        raise SchemaError(f"{path}: keys of a map follow one pattern at most")
    if patterns:
        names["pattern"] = patterns[0]
    checks = []
    if "maxLength" in names:
        checks.append(f"key.size() <= {names['maxLength']}")
    if "minLength" in names:
        checks.append(f"key.size() >= {names['minLength']}")
    if "pattern" in names:
        escaped = names["pattern"].replace("\\", "\\\\").replace("'", "\\'")
        checks.append(f"key.matches('{escaped}')")
    if checks:
        rule = {"rule": f"self.all(key, {' && '.join(checks)})", "message": f"every key must match {names}"}
        if "pattern" in names:
            rule["message"] = f"every key must match {names['pattern']}"
        out["x-kubernetes-validations"] = [*out.get("x-kubernetes-validations", []), rule]
