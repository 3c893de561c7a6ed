"""`python -m bench.gateway`: what the gateway costs, beside the registry without it; prints and writes the report.

The same bytes by the same client on the same connections, one way and the other in turn: plain HTTP straight to the
registry, and TLS with tokens through the gateway. Registry, gateway and API server are the real ones.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median

from bench.federation.operator import HUB
from bench.federation.registry import Registry
from bench.grants import AGENTS, GRANTS, Asking, open_round, signatures, through
from bench.machine import about, table, write_report
from concordat.api.types import API_VERSION
from concordat.artifacts import Access, RegistryStore
from concordat.controller import Cluster
from concordat.protocol import artifact_types as types
from concordat.statements import SigningKey
from concordat_devcluster.control_plane import ControlPlane
from concordat_devcluster.processes import free_port, start, stop
from tests.support.certificates import NAME, certificate

OUT = Path(__file__).resolve().parents[1] / "docs" / "benchmarks" / "gateway.md"
SITE, STATEMENTS, LARGE = "site-a", 200, 64 << 20
_TICKS = os.sysconf("SC_CLK_TCK")
_GATEWAY = """
import asyncio, sys
from pathlib import Path
from concordat_gateway.main import serve
from concordat_gateway.settings import Settings

namespace, registry, port, http, folder = sys.argv[1:]
asyncio.run(serve(Settings(namespace, registry, 1 << 50, int(port), int(http), Path(folder))))
"""
SIGNATURES, GRANTED = "signatures alone", "challenge to grant, through the gateway"
WAYS = ("plain HTTP, no gateway", "TLS, token, gateway")
Found = dict[str, dict[str, list[float]]]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5, help="runs of each kind, one way and the other in turn")
    parser.add_argument("--out", type=Path, default=OUT, help="the Markdown file to write")
    flags = parser.parse_args()
    found = asyncio.run(run(flags.runs))
    limits, granted = found.pop(SIGNATURES), found.pop(GRANTED)
    rows = []
    for what, ways in found.items():
        straight, through = (median(ways[way]) for way in WAYS)
        own = what.startswith("CPU")
        ratio = "–" if own else f"{through / straight:.2f}"
        rows.append([what, "–" if own else f"{straight:.3g}", f"{through:.3g}", ratio])
    grants = table(
        ["what", SIGNATURES, GRANTED, "ratio"],
        [
            [what, f"{median(limits[what]):.3g}", f"{median(times):.3g}", f"{median(times) / median(limits[what]):.2g}"]
            for what, times in granted.items()
        ],
    )
    print("\n".join(grants))
    report = table(["what", *WAYS, "ratio"], rows)
    print("\n".join(report))
    write_report(
        flags.out,
        [
            "# What the gateway costs",
            "",
            "Written by `make bench-gateway`; do not edit.",
            "",
            *(f"- {line}" for line in about("aiohttp", "cryptography")),
            f"- Medians of {flags.runs} runs, one way and the other in turn; all of it on one machine.",
            "",
            *report,
            *grants,
            "",
            "A grant: a nonce, the site's signature, the token's review, the pod read from the API server, appraised, "
            f"and the gateway's signature. {GRANTS} one after another, then as many by {AGENTS} agents at once. The "
            "limit is the signatures alone, in one process.",
            "",
            f"A statement is an artifact of 1 KiB, of which {STATEMENTS} are pushed with 8 connections; the large file "
            f"has {LARGE >> 20} MiB. CPU is of the gateway's process, per statement and per 100 MiB sent and read.",
        ],
    )


async def run(runs: int) -> Found:
    """Run everything so often."""
    found: Found = defaultdict(lambda: defaultdict(list))
    with tempfile.TemporaryDirectory(prefix="concordat-bench-") as name:
        async with gateway(Path(name)) as (urls, access, pid, asking):
            for _ in range(runs):
                bound = replace(access, token=lambda: asking.token)
                for way, times in (
                    (SIGNATURES, signatures(asking)),
                    (GRANTED, await through(urls[WAYS[1]], bound, asking)),
                ):
                    for what, value in times.items():
                        found[way][what].append(value)
            for number in range(runs):
                for way in WAYS:
                    async with RegistryStore(urls[way], access=access if way == WAYS[1] else None) as store:
                        await measure(store, way, number, pid, found, Path(name))
                    print(f"run {number}, {way}", flush=True)
    return found


async def measure(store: RegistryStore, way: str, number: int, pid: int, found: Found, folder: Path) -> None:
    """Push statements, push and pull a large file."""
    repository, mark = f"digits/decisions/{SITE}", f"{way} {number}".encode()
    started, used = time.perf_counter(), cpu(pid)

    async def push(i: int) -> float:
        begun = time.perf_counter()
        await store.push(repository, types.STATEMENT, {"statement.json": mark + b"%d" % i + bytes(1024)})
        return time.perf_counter() - begun

    waits = await asyncio.gather(*(push(i) for i in range(STATEMENTS)))
    found["statements per second"][way].append(STATEMENTS / (time.perf_counter() - started))
    found["median time of a statement among 200, ms"][way].append(1000 * median(waits))
    found["CPU of the gateway, ms per statement"][way].append(1000 * (cpu(pid) - used) / STATEMENTS)
    file = folder / "large.bin"
    await asyncio.to_thread(file.write_bytes, os.urandom(1 << 20) * (LARGE >> 20))
    started, used = time.perf_counter(), cpu(pid)
    ref = await store.push(repository, types.UPDATE, {"delta.safetensors": file})
    found["large file, MiB/s sent"][way].append((LARGE >> 20) / (time.perf_counter() - started))
    started = time.perf_counter()
    await store.pull(ref, folder / f"pulled-{way[:3]}-{number}")
    found["large file, MiB/s read"][way].append((LARGE >> 20) / (time.perf_counter() - started))
    found["CPU of the gateway, s per 100 MiB"][way].append((cpu(pid) - used) * 100 / (2 * (LARGE >> 20)))


@asynccontextmanager
async def gateway(folder: Path) -> AsyncIterator[tuple[dict[str, str], Access, int, Asking]]:
    """Start registry, API server and gateway, with one member in a round.

    Yields both ways to the registry, how to be let in, the process, and what its grants are asked with.
    """
    registry, port = Registry(folder / "registry"), free_port()
    registry.start()
    ca = certificate(folder)
    with ControlPlane() as control_plane:
        control_plane.apply_crds()
        async with Cluster(control_plane.kubeconfig) as admin:
            for space in (HUB, SITE):
                await admin.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": space}})
            account = {"name": "concordat-agent", "namespace": SITE}
            await admin.create({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": account})
            key = SigningKey.generate()
            keys = [{"publicKey": key.public.to_pem()}]
            member = {"federations": ["digits"], "keys": keys}
            metadata = {"name": SITE, "namespace": HUB}
            await admin.create({"apiVersion": API_VERSION, "kind": "Membership", "metadata": metadata, "spec": member})
            asking = await open_round(admin, registry.url, HUB, SITE, key)
        token = control_plane.kubectl(
            "create", "token", "concordat-agent", "-n", SITE, "--audience", "concordat-gateway"
        ).strip()
        kubeconfig = f"KUBECONFIG={control_plane.kubeconfig}"
        arguments = (HUB, registry.url, str(port), str(free_port()), str(folder))
        process = start(["env", kubeconfig, sys.executable, "-c", _GATEWAY, *arguments], folder / "gateway.log")
        try:
            access = Access(token=lambda: token, ca=ca, server_name=NAME)
            url = f"https://127.0.0.1:{port}"
            async with RegistryStore(url, access=access) as store:
                await store.push(f"digits/decisions/{SITE}", types.STATEMENT, {"statement.json": b"{}"})
            yield dict(zip(WAYS, (registry.url, url), strict=True)), access, process.pid, asking
        finally:
            stop(process, 3)
            registry.stop()


def cpu(pid: int) -> float:
    """Return the CPU seconds that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


if __name__ == "__main__":
    main()
