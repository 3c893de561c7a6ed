"""OCI image manifests as containers of named files (OCI image-spec 1.1, "artifact usage")."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from concordat.artifacts.errors import ArtifactCorrupt
from concordat.protocol.canonical import sha256_digest

MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
EMPTY_TYPE = "application/vnd.oci.empty.v1+json"
EMPTY = b"{}"
TITLE = "org.opencontainers.image.title"
MAX_MANIFEST = 4 << 20
MAX_FILE = 64 << 30
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_DIGEST = re.compile(r"sha256:[a-f0-9]{64}")


@dataclass(frozen=True)
class File:
    """A file of an artifact; size in bytes."""

    name: str
    digest: str
    size: int


EMPTY_CONFIG = File("config", sha256_digest(EMPTY), len(EMPTY))


def build(artifact_type: str, files: list[File], annotations: Mapping[str, str] | None = None) -> bytes:
    """Return the manifest's bytes: equal files make equal digests. Raises ValueError if they are too many."""
    document: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "artifactType": artifact_type,
        "config": {"mediaType": EMPTY_TYPE, "digest": EMPTY_CONFIG.digest, "size": EMPTY_CONFIG.size},
        "layers": [
            {
                "mediaType": "application/octet-stream",
                "digest": file.digest,
                "size": file.size,
                "annotations": {TITLE: file.name},
            }
            for file in sorted(files, key=lambda file: file.name)
        ],
    }
    if annotations:
        document["annotations"] = dict(annotations)
    data = json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
    if len(data) > MAX_MANIFEST:
        raise ValueError(f"{len(files)} files make a manifest of {len(data)} bytes; at most {MAX_MANIFEST} are allowed")
    return data


def parse(data: bytes, what: str) -> dict[str, File]:
    """Return the files of a manifest whose digest has been checked, by name; raises ArtifactCorrupt."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ArtifactCorrupt(f"{what}: the manifest is not JSON: {error}") from error
    layers = document.get("layers") if isinstance(document, dict) else None
    if not isinstance(layers, list) or document.get("mediaType", MANIFEST_TYPE) != MANIFEST_TYPE:
        raise ArtifactCorrupt(f"{what}: not an OCI image manifest of named files")
    out: dict[str, File] = {}
    for layer in layers:
        file = _file(layer)
        if file is None or file.name in out:
            raise ArtifactCorrupt(
                f"{what}: layer {ascii(layer)[:200]} is not a file: each needs an own flat title, a sha256 digest "
                f"and a size of at most {MAX_FILE}"
            )
        out[file.name] = file
    return out


def _file(layer: Any) -> File | None:
    if not isinstance(layer, dict) or not isinstance(layer.get("annotations"), dict):
        return None
    name, digest, size = layer["annotations"].get(TITLE), layer.get("digest"), layer.get("size")
    if not is_flat_name(name) or not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
        return None
    if type(size) is not int or not 0 <= size <= MAX_FILE:
        return None
    return File(name, digest, size)


def is_flat_name(name: Any) -> bool:
    """Return whether it is a plain file name, not hidden: letters, digits, '.', '_' and '-', at most 128."""
    return isinstance(name, str) and _NAME.fullmatch(name) is not None
