"""The model side of the demo, on this machine: the base package, the reference figures, and their way to the hub."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import concordat_learning
from concordat.api.types import API_VERSION, ArtifactRef
from concordat.artifacts import Access, RegistryStore
from concordat.protocol import artifact_types as types
from concordat.protocol.locations import (
    GATEWAY_AUDIENCE,
    TRUST_CONFIGMAP,
    TRUST_FILE,
    adapters_repository,
    base_repository,
)
from concordat_cli.errors import UserError
from concordat_cli.kube import Kube
from concordat_devcluster.paths import cache
from concordat_learning.processor import VARIABLES

FEDERATION = "digits"


def cache_folder() -> Path:
    """Where the demo keeps what it makes: a folder for each state of the code, and instruction set, that makes it."""
    package = Path(concordat_learning.__file__).parent
    parts = [file.read_bytes() for file in sorted(package.glob("*.py"))]
    parts += [os.environ.get(name, "").encode() for name in VARIABLES]
    return cache() / "demo" / hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def _learning(*args: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "concordat_learning.demo", *args],
        # The models are too small for a second thread to help; beside a starting cluster it only gets in the way.
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise UserError(f"concordat_learning.demo {args[0]} failed: {done.stderr.strip()[-2000:]}")


def base_package(seed: int) -> Path:
    """Return the folder with `base/` and `adapter/`, made once per seed."""
    folder = cache_folder() / f"seed-{seed}"
    if not (folder / "base" / "model.safetensors").exists():
        _learning("base", "--out", str(folder), "--seed", str(seed))
    return folder


def reference(seed: int, rounds: int) -> dict[str, Any]:
    """Return hold-out accuracies of training without a federation, made once per seed and number of rounds."""
    file = cache_folder() / f"seed-{seed}" / f"reference-{rounds}.json"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        _learning("reference", "--seed", str(seed), "--rounds", str(rounds), "--json", str(file))
    result: dict[str, Any] = json.loads(file.read_text())
    return result


@contextmanager
def gateway(kube: Kube, namespace: str) -> Iterator[tuple[str, Access]]:
    """Yield the URL of the hub's gateway, through `kubectl port-forward`, which works on every cluster; and a way in.

    The token is that of the ServiceAccount which publishes what a federation starts from.
    """
    account = ("concordat-publisher", "-n", namespace, "--audience", GATEWAY_AUDIENCE)
    token = kube.run("kubectl", "create", "token", *account).strip()
    trust = (kube.configmap(namespace, TRUST_CONFIGMAP) or {}).get(TRUST_FILE, "{}")
    name = f"concordat-gateway.{namespace}.svc"
    process = kube.popen("kubectl", "port-forward", "-n", namespace, "service/concordat-gateway", ":443")
    try:
        assert process.stdout is not None  # noqa: S101  (popen was asked for a pipe)
        line = process.stdout.readline()
        found = re.search(r"127\.0\.0\.1:(\d+)", line)
        if not found:
            raise UserError(f"kubectl port-forward to the gateway failed: {line.strip()}")
        access = Access(token=lambda: token, ca=json.loads(trust).get("gatewayCa"), server_name=name)
        yield f"https://127.0.0.1:{found[1]}", access
    finally:
        process.terminate()
        process.wait()


async def _push(url: str, access: Access, folder: Path) -> tuple[ArtifactRef, ArtifactRef]:
    async with RegistryStore(url, access=access) as store:
        base = {f.name: f for f in sorted((folder / "base").iterdir())}
        adapter = {f.name: f for f in sorted((folder / "adapter").iterdir())}
        return (
            await store.push(base_repository(FEDERATION), types.BASE_PACKAGE, base),
            await store.push(adapters_repository(FEDERATION), types.ADAPTER, adapter),
        )


def publish_genesis(kube: Kube, namespace: str, folder: Path) -> dict[str, Any]:
    """Push the base package and the first adapter; the Release that starts the federation."""
    with gateway(kube, namespace) as (url, access):
        base, adapter = asyncio.run(_push(url, access, folder))
    return {
        "apiVersion": API_VERSION,
        "kind": "Release",
        "metadata": {"name": f"{FEDERATION}-0", "namespace": namespace},
        "spec": {"federation": FEDERATION, "sequence": 0, "base": base.wire(), "adapter": adapter.wire()},
    }
