"""An in-memory copy of the watched objects, which never goes back in time.

Three sources feed it: lists, watch events and the answers to our own writes. They overlap and race, so every
object carries its resourceVersion and the newest wins; a deletion is remembered until a list is newer than
it.
"""

from __future__ import annotations

import builtins
import hashlib
import json
import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar, overload

from pydantic import ValidationError

from concordat.api.resource import Resource
from concordat.controller.definition import Key, Obj
from concordat.controller.kinds import GVK, KindLike, gvk
from concordat.controller.logs import fields

log = logging.getLogger(__name__)

R = TypeVar("R", bound=Resource)

Listener = Callable[[KindLike, Obj | None, Obj | None], None]
"""Called with kind, the old and the new state; None where the object was or is absent."""

# Metadata a reconcile may depend on; the rest changes without meaning.
_METADATA = ("uid", "generation", "labels", "finalizers", "deletionTimestamp", "ownerReferences")


@dataclass(frozen=True, slots=True)
class _Entry:
    version: int
    meaning: bytes
    labels: Mapping[str, str]
    obj: Obj


@dataclass
class _Table:
    kind: KindLike
    entries: dict[Key, _Entry] = field(default_factory=dict)
    deleted: dict[Key, int] = field(default_factory=dict)


class Cache:
    """Snapshots of the objects of some kinds. Reading is free; what is read is not to be modified."""

    def __init__(self) -> None:
        self._tables: dict[tuple[str, str], _Table] = {}
        self._listeners: list[Listener] = []

    # ---- reads

    @overload
    def get(self, kind: type[R], namespace: str, name: str) -> R | None: ...
    @overload
    def get(self, kind: GVK, namespace: str, name: str) -> dict[str, Any] | None: ...
    def get(self, kind: KindLike, namespace: str, name: str) -> Any:
        """Return the object, or None if it does not exist."""
        entry = self._table(kind).entries.get((namespace, name))
        return None if entry is None else entry.obj

    @overload
    def list(
        self, kind: type[R], namespace: str | None = None, labels: Mapping[str, str] | None = None
    ) -> builtins.list[R]: ...
    @overload
    def list(
        self, kind: GVK, namespace: str | None = None, labels: Mapping[str, str] | None = None
    ) -> builtins.list[dict[str, Any]]: ...
    def list(self, kind: KindLike, namespace: str | None = None, labels: Mapping[str, str] | None = None) -> Any:
        """Return the objects of a kind by namespace and name; with `labels`, those that carry all of them."""
        wanted = (labels or {}).items()
        found = [
            (key, entry.obj)
            for key, entry in self._table(kind).entries.items()
            if (namespace is None or key[0] == namespace) and wanted <= entry.labels.items()
        ]
        return [obj for _, obj in sorted(found, key=lambda pair: pair[0])]

    # ---- writes

    def watch(self, kinds: Iterable[KindLike]) -> None:
        """Hold objects of these kinds from now on; objects of other kinds are ignored."""
        for kind in kinds:
            self._tables.setdefault(_type(kind), _Table(kind))

    def subscribe(self, listener: Listener) -> None:
        """Call `listener` whenever an object appears, changes in a way that matters, or disappears."""
        self._listeners.append(listener)

    def unsubscribe(self, listener: Listener) -> None:
        """Undo `subscribe`."""
        self._listeners.remove(listener)

    def feed(self, raw: Mapping[str, Any]) -> bool:
        """Take in an object as the API server sent it. True if it was newer than what is held."""
        table = self._find(raw)
        if table is None:
            return False
        key, version = _key(raw), _version(raw)
        old = table.entries.get(key)
        if version <= table.deleted.get(key, 0) or (old is not None and version <= old.version):
            return False
        table.deleted.pop(key, None)
        slim = {**raw, "metadata": {k: v for k, v in raw["metadata"].items() if k != "managedFields"}}
        obj = _parse(table.kind, slim)
        if obj is None:
            # What we cannot read we must not act on, not even on what it was before.
            self._drop(table, key)
            return True
        new = _Entry(version, _meaning(slim), slim["metadata"].get("labels") or {}, obj)
        table.entries[key] = new
        if old is None or old.meaning != new.meaning:
            self._tell(table.kind, None if old is None else old.obj, obj)
        return True

    def remove(self, raw: Mapping[str, Any]) -> bool:
        """Take in a deletion, with the object's last state. True if the object was held and is gone now."""
        table = self._find(raw)
        if table is None:
            return False
        key, version = _key(raw), _version(raw)
        held = table.entries.get(key)
        if held is not None and held.version > version:
            return False  # A newer object of that name: events of the two come in any order.
        table.deleted[key] = max(version, table.deleted.get(key, 0))
        return self._drop(table, key)

    def sync(
        self,
        kind: KindLike,
        items: Iterable[Mapping[str, Any]],
        version: int,
        namespaces: Collection[str] | None = None,
    ) -> int:
        """Take in a complete list made at resourceVersion `version` and drop what it does not contain.

        `namespaces` is what was listed, None for all. Returns how many objects were dropped: those whose
        deletion no watch event told.
        """
        table = self._table(kind)
        listed = set()
        for item in items:
            listed.add(_key(item))
            self.feed(item)
        gone = [
            key
            for key, entry in table.entries.items()
            if key not in listed and entry.version <= version and (namespaces is None or key[0] in namespaces)
        ]
        for key in gone:
            table.deleted[key] = version
            self._drop(table, key)
        # A list that is newer than a deletion cannot bring the object back: no need to remember it any more.
        table.deleted = {
            key: at
            for key, at in table.deleted.items()
            if at > version or (namespaces is not None and key[0] not in namespaces)
        }
        return len(gone)

    # ---- internals

    def _table(self, kind: KindLike) -> _Table:
        try:
            return self._tables[_type(kind)]
        except KeyError:
            raise LookupError(
                f"{gvk(kind).kind} is not watched: to read it here, add it to the `watches` of a controller"
            ) from None

    def _find(self, raw: Mapping[str, Any]) -> _Table | None:
        return self._tables.get((raw.get("apiVersion", ""), raw.get("kind", "")))

    def _drop(self, table: _Table, key: Key) -> bool:
        entry = table.entries.pop(key, None)
        if entry is not None:
            self._tell(table.kind, entry.obj, None)
        return entry is not None

    def _tell(self, kind: KindLike, old: Obj | None, new: Obj | None) -> None:
        for listener in [*self._listeners]:
            listener(kind, old, new)


def _parse(kind: KindLike, raw: dict[str, Any]) -> Obj | None:
    if isinstance(kind, GVK):
        return raw
    try:
        return kind.model_validate(raw)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        log.error(
            "object ignored: it does not fit this version's schema; upgrade CRDs and programs together",
            extra=fields(
                kind=raw["kind"],
                object="/".join(_key(raw)),
                field=where,
                problem=first["msg"],
                count=error.error_count(),
            ),
        )
        return None


def _meaning(raw: Mapping[str, Any]) -> bytes:
    """Return a digest of all a reconcile may depend on; a second copy per object would take too much memory."""
    metadata = {name: raw["metadata"].get(name) for name in _METADATA}
    return hashlib.sha256(json.dumps({**raw, "metadata": metadata}, sort_keys=True).encode()).digest()


def _type(kind: KindLike) -> tuple[str, str]:
    target = gvk(kind)
    return (target.api_version, target.kind)


def _key(raw: Mapping[str, Any]) -> Key:
    return (raw["metadata"].get("namespace", ""), raw["metadata"]["name"])


def _version(raw: Mapping[str, Any]) -> int:
    # Comparable as integers: Kubernetes KEP-5504; so has every released version behaved.
    return int(raw["metadata"]["resourceVersion"])
