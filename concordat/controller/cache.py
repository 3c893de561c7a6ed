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
from concordat.api.types import LABEL_FEDERATION, LABEL_RELEASE, LABEL_ROUND_UID
from concordat.controller.concurrency import Pace
from concordat.controller.definition import Key, Obj
from concordat.controller.kinds import GVK, KindLike, gvk
from concordat.controller.logs import fields

log = logging.getLogger(__name__)

R = TypeVar("R", bound=Resource)

Listener = Callable[[KindLike, Obj | None, Obj | None], None]
"""Called with kind, the old and the new state; None where the object was or is absent."""

# Metadata a reconcile may depend on; the rest changes without meaning.
_METADATA = ("uid", "generation", "labels", "finalizers", "deletionTimestamp", "ownerReferences")


# Labels by which objects are looked up; a list by another label looks at every object of the kind.
_INDEXED = (LABEL_ROUND_UID, LABEL_RELEASE, LABEL_FEDERATION)

Slim = Callable[[dict[str, Any]], dict[str, Any]]
"""From an object as the API server sent it to what is kept of it."""


@dataclass(frozen=True, slots=True)
class _Entry:
    version: int
    meaning: bytes
    labels: Mapping[str, str]
    obj: Obj


@dataclass
class _Table:
    """The objects of one kind, and where to find them by namespace and by indexed label."""

    kind: KindLike
    entries: dict[Key, _Entry] = field(default_factory=dict)
    deleted: dict[Key, int] = field(default_factory=dict)
    unreadable: dict[Key, int] = field(default_factory=dict)
    """Objects that exist in a version that could not be parsed: an earlier one does not stand for it."""
    index: dict[tuple[str, str], set[Key]] = field(default_factory=dict)

    def put(self, key: Key, entry: _Entry) -> None:
        old = self.entries.get(key)
        if old is None or old.labels != entry.labels:
            self._unindex(key, old)
            for place in _places(key, entry):
                self.index.setdefault(place, set()).add(key)
        self.entries[key] = entry

    def pop(self, key: Key) -> _Entry | None:
        entry = self.entries.pop(key, None)
        self._unindex(key, entry)
        return entry

    def select(self, namespace: str | None, labels: Mapping[str, str]) -> Collection[Key]:
        """Return the keys of the shortest index that holds all objects of that namespace and those labels."""
        places = [(_NAMESPACE, namespace)] if namespace is not None else []
        places += [(name, labels[name]) for name in _INDEXED if name in labels]
        found = [self.index.get(place, ()) for place in places]
        return min(found, key=len) if found else self.entries

    def _unindex(self, key: Key, entry: _Entry | None) -> None:
        for place in _places(key, entry) if entry is not None else ():
            keys = self.index[place]
            keys.discard(key)
            if not keys:
                del self.index[place]


_NAMESPACE = ""
"""The index by namespace; no label has this name."""


def _places(key: Key, entry: _Entry) -> list[tuple[str, str]]:
    return [(_NAMESPACE, key[0]), *((name, entry.labels[name]) for name in _INDEXED if name in entry.labels)]


class Cache:
    """Snapshots of the objects of some kinds. Reading is free; what is read is not to be modified.

    `slim` takes away, per kind given as GVK, what nobody here reads.
    """

    def __init__(self, slim: Mapping[GVK, Slim] | None = None) -> None:
        self._slim = slim or {}
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
        """Return the objects of a kind by namespace and name; with `labels`, those that carry all of them.

        Costs as much as the result for a namespace and for the indexed labels, else as much as the kind.
        """
        table, wanted = self._table(kind), (labels or {}).items()
        found = [
            key
            for key in table.select(namespace, labels or {})
            if (namespace is None or key[0] == namespace) and wanted <= table.entries[key].labels.items()
        ]
        return [table.entries[key].obj for key in sorted(found)]

    def count(self, kind: KindLike) -> int:
        """Return how many objects of a kind there are."""
        return len(self._table(kind).entries)

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
        known = max(table.deleted.get(key, 0), table.unreadable.get(key, 0), old.version if old is not None else 0)
        if version <= known:
            return False
        table.deleted.pop(key, None)
        slim = {**raw, "metadata": {k: v for k, v in raw["metadata"].items() if k != "managedFields"}}
        if isinstance(table.kind, GVK) and table.kind in self._slim:
            slim = self._slim[table.kind](slim)
        obj = _parse(table.kind, slim)
        if obj is None:
            # What we cannot read we must not act on, not even on what it was before.
            table.unreadable[key] = version
            self._drop(table, key)
            return True
        table.unreadable.pop(key, None)
        labels = (obj["metadata"].get("labels") or {}) if isinstance(obj, dict) else obj.metadata.labels
        new = _Entry(version, _meaning(slim), labels, obj)
        table.put(key, new)
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
        if max(held.version if held is not None else 0, table.unreadable.get(key, 0)) > version:
            return False  # A newer object of that name: events of the two come in any order.
        table.unreadable.pop(key, None)
        table.deleted[key] = max(version, table.deleted.get(key, 0))
        return self._drop(table, key)

    async def sync(
        self,
        kind: KindLike,
        items: Iterable[Mapping[str, Any]],
        version: int,
        namespaces: Collection[str] | None = None,
    ) -> int:
        """Take in a complete list made at resourceVersion `version` and drop what it does not contain.

        `namespaces` is what was listed, None for all. Returns how many objects were dropped: those whose
        deletion no watch event told. Others have their turn meanwhile, and may feed the cache.
        """
        table, pace = self._table(kind), Pace()
        listed = set()
        for item in items:
            listed.add(_key(item))
            self.feed(item)
            await pace()
        gone = [
            key
            for key, entry in table.entries.items()
            if key not in listed and entry.version <= version and (namespaces is None or key[0] in namespaces)
        ]
        for key in gone:
            table.deleted[key] = version
            self._drop(table, key)
        table.unreadable = {
            key: at
            for key, at in table.unreadable.items()
            if key in listed or at > version or (namespaces is not None and key[0] not in namespaces)
        }
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
        entry = table.pop(key)
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
