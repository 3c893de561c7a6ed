"""Objects that people make in the hub's namespace."""

from __future__ import annotations

from typing import Any

from concordat.protocol import artifact_types as types
from concordat.tensors import write_tensors
from tests.scenarios.node import PARENT, Node

CONFIG = b'{"r": 2, "lora_alpha": 2}'


class HubObjects(Node):
    """Makes rounds, releases and channels as kubectl does."""

    async def publish_genesis(self) -> None:
        """The release of sequence 0 and the channel."""
        files = {types.ADAPTER_FILE: write_tensors(PARENT), types.ADAPTER_CONFIG_FILE: CONFIG}
        adapter = await self.registry.push("digits/adapters", types.ADAPTER, files)
        base = await self.registry.push("digits/base", types.BASE_PACKAGE, {"package.json": b"{}"})
        spec = {"federation": "digits", "sequence": 0, "base": base.wire(), "adapter": adapter.wire()}
        await self.create("Release", "digits-0", spec)
        await self.create("ReleaseChannel", "stable", {"federation": "digits", "follow": "Approved"})

    async def create(self, kind: str, name: str, spec: dict[str, Any]) -> None:
        """An object in the hub's namespace."""
        metadata = {"name": name, "namespace": self.hub_space}
        await self.admin.create(
            {"apiVersion": "concordat.dev/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec}
        )

    async def round(self, name: str, **spec: Any) -> None:
        """Apply a round."""
        sites = {"screening": {"clipNorm": "2"}, "aggregation": {"maxFaultySites": 1}, "quorum": 3}
        channel = {"parent": {"channelRef": {"name": "stable"}}}
        await self.create("FederationRound", name, {"federation": "digits", **channel, **sites, **spec})

    async def patch(self, plural: str, name: str, spec: dict[str, Any]) -> None:
        """Merge into the spec of an object of the hub, as kubectl does."""
        path = f"/apis/concordat.dev/v1alpha1/namespaces/{self.hub_space}/{plural}/{name}"
        await self.admin._write("PATCH", path, {"spec": spec}, content_type="application/merge-patch+json")
