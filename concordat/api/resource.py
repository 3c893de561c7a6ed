"""What all kinds have in common, and what their CRDs say beyond the schema."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from pydantic import Field

from concordat.api.conditions import ConditionType
from concordat.api.types import API_VERSION, Model, ObjectMeta


@dataclass(frozen=True)
class Column:
    """A column that `kubectl get` prints; priority 1 shows it only with `-o wide`."""

    name: str
    json_path: str
    type: str = "string"
    priority: int = 0


def condition_column(name: str, type_: ConditionType, member: str, priority: int = 0) -> Column:
    """Return a column that prints one member of one condition."""
    return Column(name, f'.status.conditions[?(@.type=="{type_}")].{member}', priority=priority)


AGE = Column("Age", ".metadata.creationTimestamp", type="date")


@dataclass(frozen=True)
class Kind:
    """Names and presentation of one custom resource."""

    kind: str
    plural: str
    singular: str
    short: str
    columns: tuple[Column, ...]
    rules: tuple[dict[str, Any], ...] = ()
    """CEL rules at the schema root: a transition rule below `status` is bypassed by `status: null`."""
    selectable: tuple[str, ...] = field(default=())
    """Fields usable in `--field-selector`."""


class Resource(Model):
    """Base of the custom resources."""

    KIND: ClassVar[Kind]

    api_version: str = API_VERSION
    kind: str = ""
    metadata: ObjectMeta = Field(default_factory=lambda: ObjectMeta(name=""))

    @property
    def key(self) -> tuple[str, str]:
        """Namespace and name."""
        return (self.metadata.namespace, self.metadata.name)

    @property
    def one_of_many(self) -> bool:
        """Return whether this is one of the objects that a round makes for every site."""
        return False
