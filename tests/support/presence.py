"""Values that a test knows to be there."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from concordat.api import ConditionType, find
from concordat.api.conditions import Condition, ConditionType

T = TypeVar("T")


def present(value: T | None) -> T:
    """Return the value; it may not be None."""
    assert value is not None
    return value


def condition(conditions: Iterable[Condition], type_: str) -> Condition:
    """Return the condition of that type, which must be there."""
    conditions = list(conditions)
    found = find(conditions, ConditionType(type_))
    assert found is not None, f"no condition {type_} among {[c.type for c in conditions]}"
    return found
