"""The parent of an update is what the contract names, wherever it is read from."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from concordat.artifacts.memory import LARGEST
from concordat.protocol import artifact_types as types
from concordat_agent.updates.parent import read_parent
from concordat_agent.workspace import Workspace
from tests.fakes.registry_server import RegistryServer

ADAPTER, CONFIG = bytes(LARGEST + 1), b"{}"
Change = Callable[[Path], None]


@pytest.fixture
async def server() -> AsyncIterator[RegistryServer]:
    async with RegistryServer() as running:
        yield running


def _nothing(path: Path) -> None:
    """Leave the file as it was staged."""


def _bit(path: Path) -> None:
    path.write_bytes(ADAPTER[:-1] + b"\1")


def _longer(path: Path) -> None:
    path.write_bytes(ADAPTER + b"\0")


def _link(path: Path) -> None:
    path.rename(path.with_name("other"))
    path.symlink_to("other")


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize(
    ("change", "downloads"), [(_nothing, 0), (_bit, 1), (_longer, 1), (_link, 1), (_pipe, 1), (Path.unlink, 1)]
)
async def test_the_staged_parent_is_used_while_it_is_what_the_contract_names(
    server: RegistryServer, tmp_path: Path, change: Change, downloads: int
) -> None:
    files: dict[str, bytes | Path] = {types.ADAPTER_FILE: ADAPTER, types.ADAPTER_CONFIG_FILE: CONFIG}
    ref = await (await server.store("hub")).push("digits/adapters", types.ADAPTER, files)
    store, workspace = await server.store("site"), Workspace(tmp_path)
    workspace.prepare("job")
    staged = await store.pull(ref, workspace.inputs("job") / "parent")
    change(staged / types.ADAPTER_FILE)
    server.requests.clear()
    assert await read_parent(store, workspace, "job", ref) == (ADAPTER, CONFIG)
    assert server.requests["site"] == ["GET blobs digits/adapters"] * downloads
