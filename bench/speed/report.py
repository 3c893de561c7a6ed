"""The tables of the speed benchmark, and how they stand to the targets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bench.machine import SLOWING, about, table, write_report
from bench.speed.operations import (
    MACHINE,
    MEAN,
    NNM_TRIMMED,
    OPERATIONS,
    OURS,
    PAIRWISE,
    PEERS,
    READ,
    SGEMM,
    SGEMM_BLOCKS,
    SGEMM_COLUMNS,
    TRIMMED,
    faulty,
)

MIB = 1 << 20
MOST_MEMORY = 128


@dataclass(frozen=True)
class Cell:
    """One operation of one implementation."""

    seconds: list[float]
    extra: int
    """Bytes beyond what the process held before the call."""
    read: list[float]
    """Of Concordat: seconds to read all values once, measured between the calls."""

    @property
    def typical(self) -> float:
        return median(self.seconds)


Measured = dict[tuple[str, str, int], Cell]
"""By implementation, operation and number of updates."""


@dataclass(frozen=True)
class Target:
    """A ratio or a figure, and what is asked of it."""

    what: str
    found: float
    asked: float
    least: bool
    """At least `asked`, or at most."""

    @property
    def met(self) -> bool:
        return self.found >= self.asked if self.least else self.found <= self.asked


def report(path: Path, measured: Measured, size: int, counts: Sequence[int], many: int, seconds: float) -> None:
    """Write the tables to `path`, and print the targets."""
    output = 4 * size
    checks = list(targets(measured, size, counts, many))
    verdicts = [
        [c.what, f"{c.found:.2f}", f"{'≥' if c.least else '≤'} {c.asked:g}", "met" if c.met else "**missed**"]
        for c in checks
    ]
    lines = [
        "# Speed and memory",
        "",
        "Written by `make bench-speed`; do not edit.",
        "",
        *(f"- {line}" for line in about("torch", "byzfl", "flwr")),
        f"- Took {seconds / 60:.0f} minutes.",
        "",
        f"Updates of P = {size:,} float32 values in 80 tensors, f = N/5. Seconds are medians of at least 5 calls after "
        "a warm-up (of more for fast ones; slow ones need no warm-up), in a process for each implementation and N. "
        "Memory is the peak of the process during a call beyond what it held before, inputs included there, in MiB; "
        f"the result itself is {output / MIB:.0f} MiB of it. Concordat and Flower get memory-mapped arrays, ByzFL one "
        "array (N, P), Flower's serverapp encoded records; making those is not counted. The processes run without "
        f"{', '.join(SLOWING)}, which make BLAS take the kernels of another processor.",
        "",
        "## Targets",
        "",
        *table(["what", "found", "asked", ""], verdicts),
        "## The machine",
        "",
        *table(["", *(f"N = {n}" for n in counts)], _machine(measured, size, counts)),
        "Read: all values once, two threads of numpy over the same mapped arrays; for the ratios above it is measured "
        "again between the calls of each operation. sgemm: X·Yᵀ of N rows and 131072 "
        "columns, with BLAS's own threads or in two threads by blocks of 8192, whichever is faster.",
        "",
    ]
    for n in counts:
        lines += [f"## N = {n}", "", *_times(measured, n)]
    lines += [f"## Concordat at N = {many}", "", *_many(measured, many), ""]
    lines += [_nnm_note(size, max(counts)), "", *_sort_note(measured, counts)]
    write_report(path, lines)
    for row in verdicts:
        print(f"{row[0]:75} {row[1]:>8}  {row[2]:8} {row[3].strip('*')}")


def targets(measured: Measured, size: int, counts: Sequence[int], many: int) -> Iterator[Target]:
    """Every target that the measurements allow to judge."""

    def ours(operation: str, n: int) -> float:
        return measured[OURS, operation, n].typical

    def by_read(operation: str, n: int) -> float:
        return ours(operation, n) / median(measured[OURS, operation, n].read)

    def peers(operation: str, n: int, library: str = "") -> list[float]:
        found = [measured.get((peer, operation, n)) for peer in PEERS if peer.startswith(library)]
        return [cell.typical for cell in found if cell]

    for n in counts:
        read = measured[MACHINE, READ, n].typical
        bound = max(read, 2.0 * n * n * size / _rate(measured, n))
        yield Target(f"{MEAN}, N = {n}: times the read bound", by_read(MEAN, n), 1.5, False)
        for library, asked in (("Flower", 10), ("ByzFL", 8)):
            if others := peers(TRIMMED, n, library):
                what = f"{TRIMMED}, N = {n}: times faster than {library}"
                yield Target(what, min(others) / ours(TRIMMED, n), asked, True)
        if n >= 64:
            yield Target(f"{TRIMMED}, N = {n}: times the read bound", by_read(TRIMMED, n), 10, False)
        for operation, sums in ((PAIRWISE, 0),):
            # The distances first; then one weighted sum, which costs what the mean costs.
            spent = ours(operation, n) - sums * ours(MEAN, n)
            less = ", less one weighted sum" if sums else ""
            what = f"{operation}, N = {n}{less}: times the larger of read and sgemm bound"
            yield Target(what, spent / bound, 1.5, False)
            if others := peers(operation, n):
                what = f"{operation}, N = {n}: times faster than the fastest peer"
                yield Target(what, min(others) / ours(operation, n), 5, True)
        if n >= 64:
            yield Target(f"{NNM_TRIMMED}, N = {n}: seconds", ours(NNM_TRIMMED, n), 3, False)
    for n in (*counts, many):
        worst, operation = max((measured[OURS, o, n].extra, o) for o in OPERATIONS if (OURS, o, n) in measured)
        used = (worst - 4 * size) / MIB
        yield Target(f"memory, N = {n}: MiB beside the result, most for {operation}", used, MOST_MEMORY, False)


def _rate(measured: Measured, n: int) -> float:
    """sgemm in floating-point operations a second: the faster of BLAS's own threads and of two threads by blocks."""
    return 2.0 * n * n * SGEMM_COLUMNS / min(measured[MACHINE, o, n].typical for o in (SGEMM, SGEMM_BLOCKS))


def _machine(measured: Measured, size: int, counts: Sequence[int]) -> list[list[str]]:
    reads = [measured[MACHINE, READ, n].typical for n in counts]
    return [
        ["read, s", *(f"{read:.3f}" for read in reads)],
        ["read, GB/s", *(f"{4e-9 * n * size / read:.1f}" for n, read in zip(counts, reads, strict=True))],
        ["sgemm, GFLOP/s", *(f"{_rate(measured, n) / 1e9:.0f}" for n in counts)],
        ["2N²P at that rate, s", *(f"{2.0 * n * n * size / _rate(measured, n):.3f}" for n in counts)],
    ]


def _times(measured: Measured, n: int) -> list[str]:
    names = [name for name in (OURS, *PEERS) if any(key[0] == name and key[2] == n for key in measured)]
    head = ["operation", *(f"{name}: s | MiB" for name in names)]
    rows = []
    for operation in OPERATIONS:
        row = [operation]
        for name in names:
            cell = measured.get((name, operation, n))
            row.append(f"{cell.typical:.3f} | {cell.extra / MIB:.0f}" if cell else "– | –")
        rows.append(row)
    split = [" | ".join(head).split(" | "), *(" | ".join(row).split(" | ") for row in rows)]
    return table(split[0], split[1:])


def _many(measured: Measured, many: int) -> list[str]:
    rows = [
        [o, f"{measured[OURS, o, many].typical:.2f}", f"{measured[OURS, o, many].extra / MIB:.0f}"]
        for o in OPERATIONS
        if (OURS, o, many) in measured
    ]
    return ["One call each, for the memory; the files are used again, so every update is there more than once.", "",
            *table(["operation", "s", "MiB"], rows)]  # fmt: skip


def _nnm_note(size: int, n: int) -> str:
    need = 4e-9 * n * (n - faulty(n)) * size
    return (
        f"ByzFL's NNM gathers N × (N − f) × P values: {need:.0f} GB at N = {n}, so it was not run there, "
        "nor was its CAF. Flower's serverapp computes distances as "
        "‖x‖² + ‖y‖² − 2xy in float32: fast, and wrong for whole models, whose norm is large beside their differences."
    )


def _sort_note(measured: Measured, counts: Sequence[int]) -> list[str]:
    """What the trimmed mean's target against ByzFL would take."""
    sorts = [(n, measured.get(("ByzFL, numpy", TRIMMED, n))) for n in counts]
    asked = [
        f"{cell.typical / 8 / measured[MACHINE, READ, n].typical:.1f} times the read bound at N = {n}"
        for n, cell in sorts
        if cell
    ]
    if not asked:
        return []
    return [
        "ByzFL's trimmed mean of a numpy array is one sort in numpy's vector instructions, which is most of what "
        f"Concordat's is too; eight times faster than that would be {', '.join(asked)}."
    ]
