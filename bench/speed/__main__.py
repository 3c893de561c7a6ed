"""`python -m bench.speed`: time and memory of every operation, in a process for each implementation; writes the report.

Needs the environment of requirements/bench.txt, 6 GB on the disk of --folder and 16 GB of memory for the peers.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median

from bench.machine import clean_environment
from bench.speed import job
from bench.speed.inputs import write
from bench.speed.operations import (
    CAF,
    CAF_WEIGHTS,
    JOB,
    MACHINE,
    NNM_TRIMMED,
    NUMPY,
    OPERATIONS,
    OURS,
    PEERS,
    READ,
    SGEMM,
    TRIMMED,
)
from bench.speed.report import Cell, Measured, Plan, report

OUT = Path(__file__).resolve().parents[2] / "docs" / "benchmarks" / "speed.md"
SIZE = 10_000_000
_NOT_MANY = {NNM_TRIMMED, CAF}
"""Operations that the peers are not asked above 16 updates: NNM for its memory, both for their time."""


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=SIZE, help="values in an update; a multiple of 20000")
    parser.add_argument("--ours", action="store_true", help="without the peers")
    parser.add_argument("--folder", type=Path, help="keep the updates here; absent: a temporary folder")
    parser.add_argument("--out", type=Path, default=OUT, help="the Markdown file to write")
    flags = parser.parse_args()
    plan = Plan(flags.size, threads=len(os.sched_getaffinity(0)))
    with tempfile.TemporaryDirectory(prefix="concordat-bench-") as temporary:
        folder = flags.folder or Path(temporary)
        print(f"writing {max(plan.updates)} updates of {plan.size} values to {folder}", flush=True)
        write(folder, max(plan.updates), plan.size)
        started = time.monotonic()
        measured: Measured = {}
        for name, threads, n, wanted in _runs(plan, () if flags.ours else tuple(PEERS)):
            measured |= _run(name, threads, folder, n, wanted, once=n == plan.many)
        report(flags.out, measured, plan, time.monotonic() - started)


def _runs(plan: Plan, peers: Sequence[str]) -> Iterator[tuple[str, int, int, Sequence[str]]]:
    """Return (implementation, threads, updates, operations) of every process."""
    for n in plan.updates:
        yield MACHINE, plan.threads, n, (READ, SGEMM)
        yield OURS, plan.threads, n, OPERATIONS if n != plan.updates[0] else (*OPERATIONS, CAF_WEIGHTS)
        # For numpy sorts with one thread whatever it may use.
        yield OURS, 1, n, (TRIMMED,)
        if NUMPY in peers:
            yield NUMPY, 1, n, (TRIMMED,)
        for name in peers:
            yield name, plan.threads, n, [o for o in OPERATIONS if n == plan.updates[0] or o not in _NOT_MANY]
    yield JOB, plan.threads, plan.updates[0], job.OPERATIONS
    yield OURS, plan.threads, plan.many, OPERATIONS


def _run(name: str, threads: int, folder: Path, n: int, operations: Sequence[str], once: bool) -> Measured:
    """Measure in a process of its own."""
    command = [sys.executable, "-m", "bench.speed.worker", name, str(folder), str(n), *operations]
    found: Measured = {}
    with subprocess.Popen(
        command + ["--once"] * once, env=clean_environment(threads), stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        for line in process.stdout:
            if not line.startswith("{"):
                continue
            said = json.loads(line)
            cell = Cell(said["seconds"], said["cpu"], said["extra"], said["beside"])
            found[name, threads, said["operation"], n] = cell
            took = f"{median(cell.seconds):8.3f} s, {median(cell.cpu):8.3f} s of processors"
            print(f"N = {n:3} {name:16} {threads} threads  {said['operation']:26} {took}", flush=True)
    if process.returncode:
        # A peer that is killed for its memory leaves the others to be measured; the engine must not fail.
        print(f"N = {n} {name}: exit status {process.returncode}; what is missing is shown as –", file=sys.stderr)
        if name in (MACHINE, OURS, JOB):
            sys.exit(1)
    return found


if __name__ == "__main__":
    main()
