"""The highest sequence that a federation has given to a release that is gone, so that none is given twice.

A ConfigMap of the hub with one key per federation.
"""

from __future__ import annotations

from concordat.controller import CONFIGMAP, Cluster, NotFound

SEQUENCES_NAME = "concordat-sequences"


async def highest_deleted(cluster: Cluster, namespace: str, federation: str) -> int:
    """Return the highest sequence among the deleted releases of a federation; 0 if there are none."""
    try:
        configmap = await cluster.get(CONFIGMAP, namespace, SEQUENCES_NAME)
    except NotFound:
        return 0
    return int((configmap.get("data") or {}).get(federation, "0"))


async def remember(cluster: Cluster, namespace: str, federation: str, sequence: int) -> None:
    """Note that a release of this sequence is about to be deleted."""
    if sequence <= await highest_deleted(cluster, namespace, federation):
        return
    # A field manager of its own for each federation: applying one leaves the others' keys alone.
    await cluster.apply(
        {
            "apiVersion": CONFIGMAP.api_version,
            "kind": CONFIGMAP.kind,
            "metadata": {"name": SEQUENCES_NAME, "namespace": namespace},
            "data": {federation: str(sequence)},
        },
        f"concordat-sequences-{federation}",
    )
