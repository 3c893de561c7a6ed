"""Namespaces of a test's own on the shared API server."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from contextlib import suppress

from concordat.controller import Cluster, NotFound
from concordat.controller.kinds import KindLike


async def new_namespace(cluster: Cluster, prefix: str) -> str:
    """Create a namespace and return its name: the prefix and something nobody else has."""
    name = f"{prefix}-{uuid.uuid4().hex[:8]}"
    await cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    return name


async def clear(cluster: Cluster, kinds: Iterable[KindLike], prefix: str) -> None:
    """Delete the objects in the namespaces whose names begin so, without their controllers.

    A scenario lists all that is there at every step: what each test leaves costs every later one.
    """
    for kind in kinds:
        for obj in await cluster.list(kind):
            metadata = obj["metadata"]
            key = (metadata["namespace"], metadata["name"])
            if not key[0].startswith(prefix):
                continue
            with suppress(NotFound):
                if metadata.get("finalizers"):
                    await cluster.set_finalizers(kind, *key, [], metadata["resourceVersion"])
                await cluster.delete(kind, *key)
