"""What a report says about where and when it was made."""

from __future__ import annotations

import os
import platform
import subprocess
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

SLOWING = ("OPENBLAS_CORETYPE", "OPENBLAS_VERBOSE", "NVPL_BLAS_DEBUG_CPU_TYPE", "MKL_DEBUG_CPU_TYPE")
"""Variables that make a BLAS choose its kernels for another processor than the one there is."""


def about(*packages: str) -> list[str]:
    """Lines: date, commit, processor, memory, Python and the versions of the packages."""
    versions = ", ".join(f"{package} {version(package)}" for package in ("numpy", *packages))
    return [
        f"Date: {datetime.now(UTC):%Y-%m-%d}. Concordat at commit {_commit()}.",
        f"Machine: {_field('/proc/cpuinfo', 'model name')}, {len(os.sched_getaffinity(0))} processors, "
        f"{int(_field('/proc/meminfo', 'MemTotal').split()[0]) >> 20} GiB of memory, Linux {platform.release()}.",
        f"Software: Python {platform.python_version()}, {versions}.",
    ]


def clean_environment(threads: int | None = None) -> dict[str, str]:
    """The environment for a subprocess: without SLOWING; BLAS and torch with so many threads, None: as they choose."""
    environment = {name: value for name, value in os.environ.items() if name not in SLOWING}
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        environment.pop(name, None)
        if threads is not None:
            environment[name] = str(threads)
    return environment


def write_report(path: Path, lines: list[str]) -> None:
    """Write a Markdown file and say where."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines).rstrip() + "\n")
    print(f"written: {path}")


def table(head: list[str], rows: list[list[str]]) -> list[str]:
    """A Markdown table, the first column to the left and the others to the right."""
    return [
        "| " + " | ".join(head) + " |",
        "|" + "|".join(["---", *["---:"] * (len(head) - 1)]) + "|",
        *("| " + " | ".join(row) + " |" for row in rows),
        "",
    ]


def stored_bytes(folder: Path) -> int:
    """Return the bytes of all files below; what disappears meanwhile counts nothing."""
    found = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                found += (Path(parent) / name).lstat().st_size
    return found


def _commit() -> str:
    found = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    return found.stdout.strip() or "unknown (no git)"


def _field(path: str, name: str) -> str:
    lines = Path(path).read_text().splitlines()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(name)), "unknown")
