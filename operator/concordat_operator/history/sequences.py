"""The highest sequence that a federation has given to a release that is gone, so that none is given twice.

A ConfigMap of the hub with one key per federation.
"""

from __future__ import annotations

from concordat.controller import Cluster
from concordat_operator.records import record, records

SEQUENCES_NAME = "concordat-sequences"


async def highest_deleted(cluster: Cluster, namespace: str, federation: str) -> int:
    """Return the highest sequence among the deleted releases of a federation; 0 if there are none."""
    return int((await records(cluster, namespace, SEQUENCES_NAME)).get(federation, "0"))


async def remember(cluster: Cluster, namespace: str, federation: str, sequence: int) -> None:
    """Note that a release of this sequence is about to be deleted."""
    if sequence > await highest_deleted(cluster, namespace, federation):
        await record(cluster, namespace, SEQUENCES_NAME, federation, str(sequence))
