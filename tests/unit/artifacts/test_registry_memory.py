"""What a store knows need not be asked for again, and what it says of the registry is still true."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from concordat.api.types import ArtifactRef
from concordat.artifacts import ArtifactCorrupt, ArtifactError, ArtifactNotFound, ArtifactTooLarge
from concordat.artifacts.memory import LARGEST, Memory
from concordat.protocol.artifact_types import UPDATE
from concordat.protocol.canonical import sha256_digest
from tests.fakes.registry_server import RegistryServer


@pytest.fixture
async def server() -> AsyncIterator[RegistryServer]:
    async with RegistryServer() as running:
        yield running


async def test_two_files_of_an_artifact_are_three_requests_once(server: RegistryServer) -> None:
    ref = await (await server.store("hub")).push("digits/a", UPDATE, {"a": b"a", "b": b"b"})
    store = await server.store("site")
    for _ in range(3):
        assert [await store.read(ref, name) for name in "ab"] == [b"a", b"b"]
        assert await store.file_digests(ref) == {"a": sha256_digest(b"a"), "b": sha256_digest(b"b")}
    assert server.requests["site"] == ["GET manifests digits/a", "GET blobs digits/a", "GET blobs digits/a"]


async def test_what_was_pushed_is_read_without_a_request(server: RegistryServer, tmp_path: Path) -> None:
    store = await server.store("site")
    ref = await store.push("digits/a", UPDATE, {"a": b"a"})
    server.requests.clear()
    assert await store.read(ref, "a") == b"a"
    assert (await store.pull(ref, tmp_path / "pulled") / "a").read_bytes() == b"a"
    assert server.requests["site"] == []


async def test_whether_an_artifact_is_there_is_asked_each_time(server: RegistryServer) -> None:
    store = await server.store("hub")
    ref = await store.push("digits/a", UPDATE, {"a": b"a"})
    assert await store.files(ref)
    server.manifests.clear()
    with pytest.raises(ArtifactNotFound):
        await store.files(ref)
    with pytest.raises(ArtifactNotFound):
        await store.read(ref, "a")


async def test_what_was_deleted_is_not_read_any_more(server: RegistryServer) -> None:
    store = await server.store("hub")
    ref = await store.push("digits/a", UPDATE, {"a": b"a"})
    await store.delete(ref)
    with pytest.raises(ArtifactNotFound):
        await store.read(ref, "a")


async def test_another_repository_is_asked_though_the_content_is_known(server: RegistryServer) -> None:
    store = await server.store("hub")
    ref = await store.push("digits/a", UPDATE, {"a": b"a"})
    with pytest.raises(ArtifactNotFound):
        await store.read(ArtifactRef(repository="digits/b", digest=ref.digest), "a")


async def test_what_is_known_has_the_same_limits(server: RegistryServer) -> None:
    store = await server.store("hub")
    ref = await store.push("digits/a", UPDATE, {"a": b"12345"})
    assert await store.read(ref, "a", limit=5) == b"12345"
    with pytest.raises(ArtifactTooLarge):
        await store.read(ref, "a", limit=4)


async def test_a_manifest_that_gives_known_content_another_size_is_corrupt(
    server: RegistryServer, tmp_path: Path
) -> None:
    store = await server.store("hub")
    good = await store.push("digits/a", UPDATE, {"a": b"12345"})
    document = json.loads(server.manifests["digits/a", good.digest])
    document["layers"][0]["size"] = 4
    body = json.dumps(document).encode()
    bad = ArtifactRef(repository="digits/a", digest=sha256_digest(body))
    server.manifests["digits/a", bad.digest] = body
    with pytest.raises(ArtifactCorrupt):
        await store.read(bad, "a")
    with pytest.raises(ArtifactCorrupt):
        await store.pull(bad, tmp_path / "pulled")


async def test_damaged_content_is_not_kept(server: RegistryServer) -> None:
    ref = await (await server.store("hub")).push("digits/a", UPDATE, {"a": b"a"})
    store, key = await server.store("site"), ("digits/a", sha256_digest(b"a"))
    server.blobs[key] = b"b"
    with pytest.raises(ArtifactCorrupt):
        await store.read(ref, "a")
    server.blobs[key] = b"a"
    assert await store.read(ref, "a") == b"a"


async def test_the_empty_configuration_is_sent_once_to_a_repository(server: RegistryServer) -> None:
    store = await server.store("site")
    await store.push("digits/a", UPDATE, {"a": b"a"})
    server.requests.clear()
    await store.push("digits/a", UPDATE, {"a": b"b"})
    assert server.requests["site"] == ["POST uploads digits/a", "PUT uploads digits/a", "PUT manifests digits/a"]
    await store.push("digits/b", UPDATE, {"a": b"b"})
    assert len(server.requests["site"]) == 3 + 5


async def test_a_configuration_that_the_registry_collected_is_sent_again(server: RegistryServer) -> None:
    store = await server.store("site")
    await store.delete(await store.push("digits/a", UPDATE, {"a": b"a"}))
    server.blobs.clear()
    ref = await store.push("digits/a", UPDATE, {"a": b"b"})
    assert await (await server.store("hub")).read(ref, "a") == b"b"


async def test_a_push_that_failed_leaves_nothing_known(server: RegistryServer) -> None:
    store = await server.store("site")
    server.change = lambda body: body + b" "
    with pytest.raises(ArtifactError):
        await store.push("digits/a", UPDATE, {"a": b"a"})
    with pytest.raises(ArtifactNotFound):
        await store.read(store.reference("digits/a", UPDATE, {"a": b"a"}), "a")


def test_the_memory_is_bounded_and_keeps_what_was_used_last() -> None:
    memory, large = Memory(), bytes(LARGEST)
    memory.keep("r", "too large", bytes(LARGEST + 1))
    assert memory.get("r", "too large") is None
    for digest in ("a", "b", "c"):
        memory.keep("r", digest, large)
    assert memory.get("r", "a") == large
    memory.keep("r", "d", large)
    memory.keep("r", "d", large)
    assert [memory.get("r", digest) is not None for digest in ("a", "b", "c", "d")] == [True, False, True, True]
    for number in range(100_000):
        memory.keep("r", str(number), b"")
    assert len(memory._entries) < 10_000
