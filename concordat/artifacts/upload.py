"""Upload of one blob, in one piece or in chunks, resumed after broken connections and restarts of the registry.

distribution-spec 1.1, "Pushing a blob monolithically" with POST then PUT, and "Pushing a blob in chunks". An upload
session survives a restart of the registry on its disk; asked by its path without the query, it says how much it has and
names a fresh location.
"""

from __future__ import annotations

import asyncio
import io
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import BinaryIO

import aiohttp

from concordat.artifacts.errors import ArtifactCorrupt, ArtifactError
from concordat.artifacts.http import Http, Interrupted, Refused
from concordat.artifacts.manifest import File

CHUNK = 16 << 20
WHOLE = 1 << 20
"""A blob of at most so many bytes is sent in one piece, and at once: to ask whether it is there costs as much."""
READ = 256 << 10
_RANGE = re.compile(r"(?:bytes=)?0-(\d{1,15})")


async def upload(http: Http, repository: str, file: File, content: bytes | Path) -> None:
    """Make the registry have the blob; a large one is not sent if the registry says that it has it.

    Raises RegistryUnavailable, ArtifactCorrupt if what arrives never matches the digest, or ArtifactError.
    """
    run = _Upload(http, repository, file, content)
    try:
        await http.again(f"push {repository}: {file.name}", run.step, lambda: run.offset)
    except Refused as error:
        raise ArtifactError(f"{repository}: {file.name} was refused by the registry: {error}") from error


class _Upload:
    def __init__(self, http: Http, repository: str, file: File, content: bytes | Path) -> None:
        self._http = http
        self._repository = repository
        self._file = file
        self._content = content
        self._session: str | None = None
        self._mismatches = 0
        self._tried = False
        self.offset = 0

    async def step(self) -> None:
        """From wherever the registry says it is, to the end."""
        again, self._tried = self._tried, True
        if (again or self._file.size > WHOLE) and await self._present():
            return
        location = await self._resumed() or await self._opened()
        with _open(self._content) as source:
            if source.seek(0, io.SEEK_END) != self._file.size:
                raise ArtifactError(f"{self._file.name} changed while it was sent; push it again")
            if self.offset == 0 and self._file.size <= WHOLE:
                source.seek(0)
                await self._commit(location, await asyncio.to_thread(source.read, WHOLE))
                return
            while self.offset < self._file.size:
                location = await self._chunk(location, source)
        await self._commit(location)

    async def _present(self) -> bool:
        path = f"v2/{self._repository}/blobs/{self._file.digest}"
        async with self._http.once("HEAD", path, (200, 404)) as response:
            return response.status == 200

    async def _opened(self) -> str:
        async with self._http.once("POST", f"v2/{self._repository}/blobs/uploads/", (202,)) as response:
            location = _location(response)
        self._session, self.offset = location.split("?")[0], 0
        return location

    async def _resumed(self) -> str | None:
        if self._session is None:
            return None
        async with self._http.once("GET", self._session, (204, 404)) as response:
            received = _received(response) if response.status == 204 else 0
            # "0-0" means none as well as one byte: begin again, nothing worth keeping is lost.
            if not 1 < received <= self._file.size:
                return None
            self.offset = received
            return _location(response)

    async def _chunk(self, location: str, source: BinaryIO) -> str:
        size = min(CHUNK, self._file.size - self.offset)
        source.seek(self.offset)
        headers = {
            "Content-Type": "application/octet-stream",
            "Content-Range": f"{self.offset}-{self.offset + size - 1}",
            "Content-Length": str(size),
        }
        async with self._http.once("PATCH", location, (202, 404, 416), _read(source, size), headers) as response:
            if response.status != 202:
                raise Interrupted(f"the upload session of {self._file.name} is not where it was: {response.status}")
            self.offset = _received(response)
            return _location(response)

    async def _commit(self, location: str, rest: bytes = b"") -> None:
        """Send the rest of the blob, and have the registry check the whole."""
        mark = "&" if "?" in location else "?"
        path = f"{location}{mark}digest={self._file.digest}"
        headers = {"Content-Type": "application/octet-stream"}
        async with self._http.once("PUT", path, (201, 400, 404, 416), rest, headers) as response:
            if response.status == 201:
                return
            text = (await response.content.read(2000)).decode("utf-8", "replace")
        if response.status == 400 and "DIGEST_INVALID" not in text:
            raise Refused(f"push {self._repository}: {self._file.name}", response.status, text)
        self._mismatches += response.status == 400
        if self._mismatches > 1:
            raise ArtifactCorrupt(
                f"{self._repository}: what arrives of {self._file.name} does not hash to {self._file.digest}; "
                "was the file changed while it was sent?"
            )
        self._session = None
        raise Interrupted(f"the registry could not complete {self._file.name}: {response.status} {text[:200]}")


def _open(content: bytes | Path) -> BinaryIO:
    return io.BytesIO(content) if isinstance(content, bytes) else content.open("rb")


async def _read(source: BinaryIO, size: int) -> AsyncIterator[bytes]:
    while size > 0:
        part = await asyncio.to_thread(source.read, min(READ, size))
        if not part:
            return  # became shorter: the request fails, and the next try says so
        size -= len(part)
        yield part


def _received(response: aiohttp.ClientResponse) -> int:
    found = _RANGE.fullmatch(response.headers.get("Range", ""))
    if found is None:
        raise ArtifactError(f"the registry sent no usable Range for an upload: {response.headers.get('Range')!r}")
    return int(found[1]) + 1


def _location(response: aiohttp.ClientResponse) -> str:
    location = response.headers.get("Location")
    if not location:
        raise ArtifactError("the registry sent no Location for an upload")
    return location
