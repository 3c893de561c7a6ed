"""Verified download of one blob."""

from __future__ import annotations

import hashlib
from typing import BinaryIO

from concordat.artifacts.errors import ArtifactCorrupt
from concordat.artifacts.http import Http, Interrupted
from concordat.artifacts.manifest import File

PART = 1 << 20


async def download(http: Http, repository: str, file: File, out: BinaryIO) -> None:
    """Write a blob to an empty open file, continuing after broken connections.

    Raises ArtifactCorrupt unless exactly the announced bytes came; what was written is then worthless.
    """
    run = _Download(http, repository, file, out)
    await http.again(f"read {run.what}", run.step, lambda: run.offset)
    if run.digest != file.digest:
        raise ArtifactCorrupt(f"{run.what}: the content hashes to {run.digest}; repair the registry")


class _Download:
    def __init__(self, http: Http, repository: str, file: File, out: BinaryIO) -> None:
        self.what = f"{repository}: {file.name} {file.digest}"
        self.offset = 0
        self._http = http
        self._path = f"v2/{repository}/blobs/{file.digest}"
        self._size = file.size
        self._out = out
        self._hash = hashlib.sha256()

    @property
    def digest(self) -> str:
        """Of what was written."""
        return "sha256:" + self._hash.hexdigest()

    async def step(self) -> None:
        """From where the last try ended, to the end."""
        if self.offset == self._size > 0:
            return
        headers = {"Range": f"bytes={self.offset}-"} if self.offset else {}
        async with self._http.once("GET", self._path, (200, 206, 404, 416), headers=headers) as response:
            if response.status == 404:
                raise ArtifactCorrupt(f"{self.what} is missing although its manifest is there; push the artifact again")
            if response.status == 416:
                raise ArtifactCorrupt(f"{self.what} has fewer than {self._size} bytes in the registry")
            continues = response.headers.get("Content-Range", "").startswith(f"bytes {self.offset}-")
            if self.offset and not (response.status == 206 and continues):
                self._rewind()
                if response.status == 206:
                    raise Interrupted(f"{self.what}: the registry sent another range than was asked for")
            async for part in response.content.iter_chunked(PART):
                if self.offset + len(part) > self._size:
                    raise ArtifactCorrupt(f"{self.what} has more than {self._size} bytes in the registry")
                self._hash.update(part)
                self._out.write(part)
                self.offset += len(part)
        if self.offset < self._size:
            raise ArtifactCorrupt(f"{self.what} has {self.offset} bytes in the registry, expected {self._size}")

    def _rewind(self) -> None:
        self._out.seek(0)
        self._out.truncate()
        self._hash, self.offset = hashlib.sha256(), 0
