"""What a push asks of the registry."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from concordat.artifacts import ArtifactCorrupt
from concordat.artifacts.registry import tag_of
from concordat.artifacts.upload import CHUNK, WHOLE
from concordat.protocol.artifact_types import UPDATE
from tests.fakes.registry_server import RegistryServer

SENT = ["POST uploads digits/a", "PUT uploads digits/a"]


@pytest.fixture
async def server() -> AsyncIterator[RegistryServer]:
    async with RegistryServer() as running:
        yield running


async def test_a_small_file_is_sent_in_one_piece(server: RegistryServer, tmp_path: Path) -> None:
    store = await server.store("site")
    (tmp_path / "b").write_bytes(b"b" * WHOLE)
    ref = await store.push("digits/a", UPDATE, {"a": b"", "b": tmp_path / "b"})
    assert server.requests["site"] == [*SENT, *SENT, *SENT, "PUT manifests digits/a"]
    assert await store.read(ref, "a") == b""
    assert await store.read(ref, "b") == b"b" * WHOLE


async def test_a_large_file_is_asked_for_and_sent_in_chunks(server: RegistryServer) -> None:
    store, content = await server.store("site"), bytes(CHUNK + 1)
    await store.push("digits/a", UPDATE, {"a": content})
    chunk = "PATCH uploads digits/a"
    large = ["HEAD blobs digits/a", SENT[0], chunk, chunk, SENT[1]]
    assert server.requests["site"] == [*SENT, *large, "PUT manifests digits/a"]
    server.requests.clear()
    await store.push("digits/a", UPDATE, {"a": content})
    assert "HEAD blobs digits/a" in server.requests["site"]
    assert chunk not in server.requests["site"]


async def test_a_manifest_is_sent_once_and_is_tagged(server: RegistryServer) -> None:
    ref = await (await server.store("site")).push("digits/a", UPDATE, {"a": b"a"})
    assert server.requests["site"].count("PUT manifests digits/a") == 1
    assert server.tags == {("digits/a", tag_of(ref)): ref.digest}
    assert server.manifests.keys() == {("digits/a", ref.digest)}


async def test_a_registry_that_does_not_say_what_it_stored_is_asked_by_digest(server: RegistryServer) -> None:
    """Under a digest it can store nothing else."""
    server.names_digests = False
    ref = await (await server.store("site")).push("digits/a", UPDATE, {"a": b"a"})
    assert server.requests["site"].count("PUT manifests digits/a") == 2
    assert server.manifests.keys() == {("digits/a", ref.digest)}


async def test_a_manifest_that_was_changed_on_the_way_is_noticed(server: RegistryServer) -> None:
    server.change = lambda body: body + b" "
    with pytest.raises(ArtifactCorrupt, match="instead of"):
        await (await server.store("site")).push("digits/a", UPDATE, {"a": b"a"})
