"""pydantic to structural schema: what is translated, and what is refused."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field, create_model

from concordat.api.schema import SchemaError, structural
from concordat.api.types import LabelKey, LabelValue, Model


class Part(Model):
    """A part."""

    size: Annotated[int, Field(gt=0, lt=10)] = 3
    """Its size."""


class Named(Model):
    """Something named."""

    name: str
    """Its name."""


class Loop(Model):
    """A thing that contains itself."""

    inner: Loop | None = None
    """Itself."""


class Colour(StrEnum):
    """A colour."""

    RED = "Red"


def schema(annotation: Any, *default: Any, defaults: bool = True, **kwargs: Any) -> dict[str, Any]:
    field = Field(*default, description="A field.", **kwargs)
    model = create_model("Model", __base__=Model, field=(annotation, field))
    return structural(model, "field", defaults=defaults)


D = {"description": "A field."}
INTEGER = {"type": "integer"}


@pytest.mark.parametrize(
    ("annotation", "default", "expected"),
    [
        (str, (), {**D, "type": "string"}),
        (bool, (False,), {**D, "type": "boolean", "default": False}),
        (str | None, (None,), {**D, "type": "string"}),
        (
            Annotated[int, Field(ge=0, le=9)],
            (),
            {**D, "type": "integer", "minimum": 0, "maximum": 9, "format": "int32"},
        ),
        (
            Annotated[int, Field(ge=0, le=2**40)],
            (),
            {**D, "type": "integer", "minimum": 0, "maximum": 2**40, "format": "int64"},
        ),
        (int, (), {**D, "type": "integer", "format": "int64"}),
        (Literal["x"], (), {**D, "type": "string", "enum": ["x"]}),
        (Colour, (Colour.RED,), {**D, "type": "string", "enum": ["Red"], "default": "Red"}),
        (list[bool], ([],), {**D, "type": "array", "items": {"type": "boolean"}}),
        (dict[str, bool], ({},), {**D, "type": "object", "additionalProperties": {"type": "boolean"}}),
    ],
)
def test_translation(annotation: Any, default: tuple[Any, ...], expected: dict[str, Any]) -> None:
    found = schema(annotation, *default)
    if expected["type"] == "object":
        found.pop("default", None)
    assert found == expected


def test_exclusive_bounds_become_inclusive() -> None:
    size = schema(Part)["properties"]["size"]
    assert (size["minimum"], size["maximum"]) == (1, 9)


def test_objects_made_of_defaults_default_to_empty_unless_optional() -> None:
    outer = create_model(
        "Outer",
        __base__=Model,
        __doc__="Outer.",
        part=(Part, Field(default_factory=Part, description="Always there.")),
        maybe=(Part | None, Field(None, description="Perhaps.")),
        named=(Named | None, Field(None, description="Perhaps.")),
    )
    members = schema(outer)["properties"]
    assert members["part"]["default"] == {}
    assert "default" not in members["maybe"]
    assert "default" not in members["named"]
    assert members["named"]["required"] == ["name"]


def test_a_status_has_no_defaults() -> None:
    assert "default" not in str(schema(Part, defaults=False))


def test_bounds_on_keys_become_a_rule() -> None:
    found = schema(dict[LabelKey, LabelValue])
    assert found["additionalProperties"]["maxLength"] == 63
    (rule,) = found["x-kubernetes-validations"]
    assert "key.size() <= 317" in rule["rule"]
    assert "key.matches('^([a-z0-9.-]+/)?" in rule["rule"]


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (float, "floats are not allowed"),
        (int | str, "unions are not allowed"),
        (Loop, "cannot recur"),
        (Any, "not supported"),
        (dict[str, Any], "type"),
        (Annotated[int, Field(multiple_of=3)], "multipleOf"),
    ],
)
def test_what_a_structural_schema_cannot_say_is_refused(annotation: Any, words: str) -> None:
    with pytest.raises(SchemaError, match=words) as caught:
        schema(annotation)
    assert ".field" in str(caught.value)


def test_a_field_without_a_docstring_is_refused() -> None:
    bare = create_model("Bare", __base__=Model, __doc__="Bare.", member=(str, ...))
    with pytest.raises(SchemaError, match=r"\.field\.member: a field needs a docstring"):
        schema(bare)
