"""`python -m bench.speed`: time and memory of every operation, in a process for each implementation; writes the report.

Needs the environment of requirements/bench.txt, 3 GB on the disk of --folder and 16 GB of memory for the peers.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from bench.machine import clean_environment
from bench.speed.inputs import write
from bench.speed.operations import (
    CAF,
    IMPLEMENTATIONS,
    MACHINE,
    NNM_TRIMMED,
    OPERATIONS,
    OURS,
    READ,
    SGEMM,
    SGEMM_BLOCKS,
)
from bench.speed.report import Cell, Measured, report

OUT = Path(__file__).resolve().parents[2] / "docs" / "benchmarks" / "speed.md"
SIZE, UPDATES, MANY = 10_000_000, (16, 64), 256
_NOT_MANY = {NNM_TRIMMED, CAF}
"""What the peers are not asked above 16 updates: NNM for its memory, both for their time."""


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=SIZE, help="values in an update; a multiple of 20000")
    parser.add_argument("--ours", action="store_true", help="without the peers")
    parser.add_argument("--folder", type=Path, help="keep the updates here; absent: a temporary folder")
    parser.add_argument("--out", type=Path, default=OUT, help="the Markdown file to write")
    flags = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="concordat-bench-") as temporary:
        folder = flags.folder or Path(temporary)
        print(f"writing {max(UPDATES)} updates of {flags.size} values to {folder}", flush=True)
        write(folder, max(UPDATES), flags.size)
        started = time.monotonic()
        measured: Measured = {}
        chosen = (MACHINE, OURS) if flags.ours else tuple(IMPLEMENTATIONS)
        for n in UPDATES:
            for name in chosen:
                wanted = [o for o in OPERATIONS if name == OURS or n <= min(UPDATES) or o not in _NOT_MANY]
                wanted = [READ, SGEMM, SGEMM_BLOCKS] if name == MACHINE else wanted
                measured |= _run(name, folder, n, wanted, once=False)
        measured |= _run(OURS, folder, MANY, list(OPERATIONS), once=True)
        report(flags.out, measured, flags.size, UPDATES, MANY, time.monotonic() - started)


def _run(name: str, folder: Path, n: int, operations: list[str], once: bool) -> Measured:
    """Measure in a process of its own."""
    command = [sys.executable, "-m", "bench.speed.worker", name, str(folder), str(n), *operations]
    found: Measured = {}
    with subprocess.Popen(
        command + ["--once"] * once, env=clean_environment(), stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        for line in process.stdout:
            if not line.startswith("{"):
                continue
            said = json.loads(line)
            cell = Cell(said["seconds"], said["extra"], said["beside"])
            found[name, said["operation"], n] = cell
            print(f"N = {n:3} {name:16} {said['operation']:20} {median(cell.seconds):8.3f} s", flush=True)
    if process.returncode:
        # A peer that is killed for its memory leaves the others to be measured; the engine must not fail.
        print(f"N = {n} {name}: exit status {process.returncode}; what is missing is shown as –", file=sys.stderr)
        if name in (MACHINE, OURS):
            sys.exit(1)
    return found


if __name__ == "__main__":
    main()
