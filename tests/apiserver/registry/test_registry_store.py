"""Storing and reading artifacts in a real registry; what is damaged or hostile there is never handed out."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Protocol

import aiohttp
import pytest

from concordat.api.types import ArtifactRef
from concordat.artifacts import ArtifactCorrupt, ArtifactNotFound, ArtifactTooLarge, RegistryStore, RegistryUnavailable
from concordat.artifacts.manifest import EMPTY, EMPTY_TYPE, MANIFEST_TYPE, TITLE
from concordat.protocol.artifact_types import UPDATE
from concordat.protocol.canonical import sha256_digest


class Stored(Protocol):
    url: str

    def blob(self, digest: str) -> Path: ...


@pytest.fixture
async def store(registry: Stored) -> AsyncIterator[RegistryStore]:
    async with RegistryStore(registry.url, at_once) as opened:
        yield opened


@pytest.fixture
async def reader(registry: Stored) -> AsyncIterator[RegistryStore]:
    """Another connection: it knows nothing of what `store` pushed."""
    async with RegistryStore(registry.url, at_once) as opened:
        yield opened


async def at_once(seconds: float) -> None:
    """Backoff without waiting."""


def _large(path: Path, mebibytes: int) -> Path:
    with path.open("wb") as file:
        for i in range(mebibytes):
            file.write(hashlib.sha256(bytes([i])).digest() * (1 << 15))
    return path


async def test_what_is_pushed_is_what_is_read(store: RegistryStore, reader: RegistryStore, tmp_path: Path) -> None:
    large = _large(tmp_path / "large", 37)
    files: dict[str, bytes | Path] = {"small.json": b'{"a":1}', "model.safetensors": large, "empty": b"", "one": b"x"}
    ref = await store.push("digits/base", UPDATE, files)

    assert await store.push("digits/base", UPDATE, dict(reversed(files.items()))) == ref
    assert await reader.file_digests(ref) == {
        name: sha256_digest(content if isinstance(content, bytes) else content.read_bytes())
        for name, content in files.items()
    }
    assert await reader.read(ref, "empty") == b""
    pulled = await reader.pull(ref, tmp_path / "deep" / "pulled")
    assert {p.name: p.read_bytes() for p in pulled.iterdir()} == {
        name: content if isinstance(content, bytes) else content.read_bytes() for name, content in files.items()
    }
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["pulled"]


async def test_an_artifact_is_tagged_and_annotated(store: RegistryStore, registry: Stored) -> None:
    ref = await store.push("digits/tagged", UPDATE, {"a": b"a"}, {"note": "x"})
    url = f"{registry.url}/v2/digits/tagged/manifests/a-{ref.digest[7:39]}"
    async with aiohttp.ClientSession() as session, session.get(url, headers={"Accept": MANIFEST_TYPE}) as response:
        body = await response.read()
    assert sha256_digest(body) == ref.digest
    assert json.loads(body)["annotations"] == {"note": "x"}
    assert json.loads(body)["artifactType"] == UPDATE


async def test_deleting_twice_is_deleting_once(store: RegistryStore) -> None:
    ref = await store.push("digits/gone", UPDATE, {"a": b"to be deleted"})
    await store.delete(ref)
    await store.delete(ref)
    with pytest.raises(ArtifactNotFound, match=ref.digest):
        await store.read(ref, "a")


async def test_limits_and_absences_are_told_apart(store: RegistryStore, reader: RegistryStore) -> None:
    ref = await store.push("digits/limits", UPDATE, {"a": b"12345"})
    assert await reader.read(ref, "a", limit=5) == b"12345"
    with pytest.raises(ArtifactTooLarge, match="a has 5 bytes, at most 4"):
        await reader.read(ref, "a", limit=4)
    with pytest.raises(ArtifactNotFound, match="no file 'b'"):
        await reader.read(ref, "b")
    with pytest.raises(ArtifactNotFound):
        await reader.file_digests(ArtifactRef(repository="digits/unknown", digest=ref.digest))


@pytest.mark.parametrize("name", ["../a", "/etc/passwd", "a/b", "", ".hidden", "a\n", "a\0", "ä", "a" * 129])
async def test_only_flat_names_are_pushed(store: RegistryStore, name: str) -> None:
    with pytest.raises(ValueError, match="must be flat"):
        await store.push("digits/names", UPDATE, {name: b""})


def _flip(data: bytes) -> bytes:
    return data[:10] + bytes([data[10] ^ 1]) + data[11:]


@pytest.mark.parametrize(
    "damage",
    [_flip, lambda d: d[:-1], lambda d: d[:0], lambda d: d + b"x", None],
    ids=["flipped", "truncated", "emptied", "extended", "removed"],
)
@pytest.mark.parametrize("what", ["file", "manifest"])
async def test_damaged_storage_is_noticed(
    store: RegistryStore,
    reader: RegistryStore,
    registry: Stored,
    tmp_path: Path,
    damage: Callable[[bytes], bytes] | None,
    what: str,
) -> None:
    content = f"{what} {damage} 0123456789".encode()
    ref = await store.push("digits/damaged", UPDATE, {"good": b"good", "file": content})
    path = registry.blob(sha256_digest(content) if what == "file" else ref.digest)
    if damage is None:
        path.unlink()
    else:
        path.write_bytes(damage(path.read_bytes()))

    # For a manifest that it cannot parse itself, the registry answers 500: not to be told from an outage.
    noticed = ArtifactCorrupt if what == "file" else (ArtifactCorrupt, ArtifactNotFound, RegistryUnavailable)
    with pytest.raises(noticed):
        await reader.read(ref, "file")
    with pytest.raises(noticed):
        await reader.pull(ref, tmp_path / "pulled")
    assert list(tmp_path.iterdir()) == []
    if what == "file":
        assert await reader.read(ref, "good") == b"good"


async def _put_raw(url: str, repository: str, document: Any) -> ArtifactRef:
    body = json.dumps(document).encode()
    ref = ArtifactRef(repository=repository, digest=sha256_digest(body))
    path = f"{url}/v2/{repository}/manifests/{ref.digest}"
    async with (
        aiohttp.ClientSession() as session,
        session.put(path, data=body, headers={"Content-Type": document["mediaType"]}) as response,
    ):
        assert response.status == 201, await response.text()
    return ref


def _layer(title: Any, content: bytes = b"a", **changes: Any) -> dict[str, Any]:
    layer = {
        "mediaType": "application/octet-stream",
        "digest": sha256_digest(content),
        "size": len(content),
        "annotations": {TITLE: title},
    }
    return {**layer, **changes}


@pytest.mark.parametrize(
    "layers",
    [
        [_layer("../../etc/cron.d/x")],
        [_layer("/etc/passwd")],
        [_layer("")],
        [_layer("a\n")],
        [_layer("a"), _layer("a", b"b")],
        [_layer("a", annotations={})],
        [_layer("a", size=2)],
        [_layer("a", size=0)],
        [_layer("a", size=2**62)],
    ],
)
async def test_a_hostile_manifest_yields_no_file(
    store: RegistryStore, registry: Stored, tmp_path: Path, layers: list[Any]
) -> None:
    await store.push("digits/hostile", UPDATE, {"a": b"a", "b": b"b"})
    document = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "artifactType": UPDATE,
        "config": {"mediaType": EMPTY_TYPE, "digest": sha256_digest(EMPTY), "size": 2},
        "layers": layers,
    }
    ref = await _put_raw(registry.url, "digits/hostile", document)
    with pytest.raises(ArtifactCorrupt):
        await store.pull(ref, tmp_path / "out" / "pulled")
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


async def test_an_index_is_not_an_artifact(store: RegistryStore, registry: Stored) -> None:
    index_type = "application/vnd.oci.image.index.v1+json"
    ref = await _put_raw(registry.url, "digits/index", {"schemaVersion": 2, "mediaType": index_type, "manifests": []})
    with pytest.raises(ArtifactCorrupt, match="not an OCI image manifest"):
        await store.file_digests(ref)


async def test_many_pulls_at_once_make_one_folder(store: RegistryStore, reader: RegistryStore, tmp_path: Path) -> None:
    ref = await store.push("digits/many", UPDATE, {f"f{i}": bytes([i]) * 1000 for i in range(20)})
    target = tmp_path / "pulled"
    assert await asyncio.gather(*(reader.pull(ref, target) for _ in range(8))) == [target] * 8
    assert [p.name for p in tmp_path.iterdir()] == ["pulled"]
    assert len(list(target.iterdir())) == 20
