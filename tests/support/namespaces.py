"""Namespaces of a test's own on the shared API server."""

from __future__ import annotations

import uuid

from concordat.controller import Cluster


async def new_namespace(cluster: Cluster, prefix: str) -> str:
    """Create a namespace and return its name: the prefix and something nobody else has."""
    name = f"{prefix}-{uuid.uuid4().hex[:8]}"
    await cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    return name
