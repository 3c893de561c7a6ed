"""ConfigMaps of the hub with a key for each site or federation: no site can write there."""

from __future__ import annotations

from concordat.controller import CONFIGMAP, Cluster, NotFound


async def records(cluster: Cluster, namespace: str, name: str) -> dict[str, str]:
    """Return the records by key; none where there is no such ConfigMap."""
    try:
        configmap = await cluster.get(CONFIGMAP, namespace, name)
    except NotFound:
        return {}
    return dict(configmap.get("data") or {})


async def record(cluster: Cluster, namespace: str, name: str, key: str, value: str) -> None:
    """Set one record, whatever the others are."""
    # A field manager of its own for each key: applying one leaves the others alone.
    await cluster.apply(
        {
            "apiVersion": CONFIGMAP.api_version,
            "kind": CONFIGMAP.kind,
            "metadata": {"name": name, "namespace": namespace},
            "data": {key: value},
        },
        f"{name}-{key}",
    )
