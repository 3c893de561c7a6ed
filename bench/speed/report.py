"""The tables of the speed benchmark, and how they stand to the targets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bench.machine import SLOWING, about, table, write_report
from bench.speed import job
from bench.speed.inputs import faulty
from bench.speed.operations import (
    CAF_UPDATES,
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
    SGEMM_COLUMNS,
    TRIMMED,
)

MIB = 1 << 20


@dataclass(frozen=True)
class Plan:
    """The sizes and repetitions of a measurement."""

    size: int
    """Values in one update."""
    threads: int
    """That every implementation may use, unless a table says one."""
    updates: tuple[int, int] = (16, 64)
    many: int = 256
    """Updates for which the engine alone is measured, once."""


@dataclass(frozen=True)
class Cell:
    """One operation of one implementation."""

    seconds: list[float]
    cpu: list[float]
    """Seconds of processors: what all threads together used."""
    extra: int
    """Bytes beyond what the process held before the call."""
    read: list[float]
    """Of Concordat: seconds to read all values once, measured between the calls."""

    @property
    def typical(self) -> float:
        return median(self.seconds)

    @property
    def shown(self) -> list[str]:
        """Seconds, seconds of processors, and MiB."""
        return [f"{self.typical:.3f}", f"{median(self.cpu):.3f}", f"{self.extra / MIB:.0f}"]


Measured = dict[tuple[str, int, str, int], Cell]
"""By implementation, threads, operation and number of updates."""
_HEAD = ("s", "CPU s", "MiB")
_NONE = ["–"] * len(_HEAD)


@dataclass(frozen=True)
class Target:
    """A ratio or a figure, and what is asked of it."""

    what: str
    found: float
    asked: float
    least: bool = False
    """At least `asked`, or at most."""

    @property
    def met(self) -> bool:
        return self.found >= self.asked if self.least else self.found <= self.asked


def report(path: Path, measured: Measured, plan: Plan, seconds: float) -> None:
    """Write the tables to `path`, and print the targets."""
    verdicts = [
        [t.what, f"{t.found:.2f}", f"{'≥' if t.least else '≤'} {t.asked:g}", "met" if t.met else "**missed**"]
        for t in targets(measured, plan)
    ]
    peers = any(name in PEERS for name, *_ in measured)
    lines = [
        "# Speed and memory",
        "",
        "Written by `make bench-speed`; do not edit.",
        "",
        *(f"- {line}" for line in about(*(("torch", "byzfl", "flwr") if peers else ()))),
        f"- Took {seconds / 60:.0f} minutes.",
        "",
        *_setup(plan),
        "## Targets",
        "",
        *table(["what", "found", "asked", ""], verdicts),
        *_job(measured, plan),
        *_machine(measured, plan),
    ]
    for n in plan.updates:
        lines += [f"## N = {n}, {plan.threads} threads", "", *_times(measured, plan, n)]
    lines += [*_one_thread(measured, plan), *_many(measured, plan), *_notes(plan)]
    write_report(path, lines)
    for row in verdicts:
        print(f"{row[0]:75} {row[1]:>8}  {row[2]:8} {row[3].strip('*')}")


def targets(measured: Measured, plan: Plan) -> Iterator[Target]:
    """Every target that the measurements allow to judge."""
    few, more = plan.updates
    for n in plan.updates:
        peer = measured.get((NUMPY, 1, TRIMMED, n))
        if peer:
            ratio = peer.typical / measured[OURS, 1, TRIMMED, n].typical
            yield Target(f"{TRIMMED}, N = {n}, one thread each: times faster than ByzFL on numpy", ratio, 4, least=True)
    values = f"P = {plan.size / 1e6:g} M"
    mixed = measured[OURS, plan.threads, NNM_TRIMMED, more].typical
    yield Target(f"{NNM_TRIMMED}, N = {more}, {values}: seconds", mixed, 1.5)
    whole = measured[JOB, plan.threads, job.WHOLE, few].typical
    moved = measured[JOB, plan.threads, job.IO, few].typical
    yield Target(f"the whole aggregator, N = {few}, {values}: times its reads and writes", whole / moved, 3)
    weights = measured[OURS, plan.threads, CAF_WEIGHTS, few].typical
    yield Target(f"{CAF_WEIGHTS}, N = {CAF_UPDATES}: seconds", weights, 1)


def _setup(plan: Plan) -> list[str]:
    return [
        f"Updates of P = {plan.size:,} float32 values in 80 tensors, f = N/5. Seconds are medians of at least 5 calls "
        "after a warm-up (of more for fast ones; slow ones need no warm-up), in a process for each implementation, N "
        "and number of threads. *CPU s* is what all of its threads used together: where it is the same as *s*, one "
        f"thread worked. Every implementation may use {plan.threads}, its BLAS and torch included; numpy's sort and "
        "median, which are ByzFL's and Flower's, take one. "
        "Memory is the peak of the process during a call beyond what it held before, inputs included there, in MiB; "
        f"the result itself is {4 * plan.size / MIB:.0f} MiB of it. Concordat and Flower get memory-mapped arrays, "
        "ByzFL one array (N, P), Flower's serverapp encoded records; making those is not counted. The processes run "
        f"without {', '.join(SLOWING)}, which make BLAS take the kernels of another processor.",
        "",
    ]


def _job(measured: Measured, plan: Plan) -> list[str]:
    few = plan.updates[0]
    moved = measured[JOB, plan.threads, job.IO, few].typical
    rows = []
    for operation in job.OPERATIONS:
        cell = measured[JOB, plan.threads, operation, few]
        rows.append([operation, *cell.shown, f"{cell.typical / moved:.1f}"])
    return [
        f"## The aggregation Job, N = {few}",
        "",
        "What a user waits for, from the request to the candidate in the registry, which lies on the same disk: its "
        "answers cost hashing and writing, and no network. *Its reads and writes*: each update written to the disk, "
        "hashed on the way, read, and written once more in the coordinates in which updates are compared; those read "
        "twice, to compare and to add up; the candidate sent. *With a canary*: the three runs of the program, without "
        "what the learning image does between them. *Svd*: both factors, as many values in all, NNM and trimmed mean.",
        "",
        *table(["", *_HEAD, "times its reads and writes"], rows),
    ]


def _machine(measured: Measured, plan: Plan) -> list[str]:
    cells = {what: [measured[MACHINE, plan.threads, what, n].typical for n in plan.updates] for what in (READ, SGEMM)}
    whole = [seconds * plan.size / SGEMM_COLUMNS for seconds in cells[SGEMM]]
    rows = [
        ["read, s", *(f"{read:.3f}" for read in cells[READ])],
        ["read, GB/s", *(f"{4e-9 * n * plan.size / s:.1f}" for n, s in zip(plan.updates, cells[READ], strict=True))],
        ["sgemm X·Yᵀ, s", *(f"{seconds:.3f}" for seconds in whole)],
    ]
    return [
        f"## The machine, {plan.threads} threads",
        "",
        *table(["", *(f"N = {n}" for n in plan.updates)], rows),
        "Read: all values once, by numpy over the same mapped arrays. sgemm: one product of two blocks (N, P), "
        "extrapolated from 131,072 columns. It is a yardstick for the distances and no bound: of X·Xᵀ, which they are "
        "made of, half the products suffice.",
        "",
    ]


def _times(measured: Measured, plan: Plan, n: int) -> list[str]:
    names = [
        name for name in (OURS, *PEERS) if any(k[0] == name and k[1] == plan.threads and k[3] == n for k in measured)
    ]
    rows = []
    for operation in OPERATIONS:
        own = measured[OURS, plan.threads, operation, n]
        row = [operation, f"{own.typical / median(own.read):.1f}"]
        for name in names:
            cell = measured.get((name, plan.threads, operation, n))
            row += cell.shown if cell else _NONE
        rows.append(row)
    head = [f"{names[0]}: times one read"]
    return table(["operation", *head, *(f"{name}: {what}" for name in names for what in _HEAD)], rows)


def _one_thread(measured: Measured, plan: Plan) -> list[str]:
    rows = []
    for n in plan.updates:
        cells = [measured.get((name, 1, TRIMMED, n)) for name in (OURS, NUMPY)]
        rows.append([f"N = {n}", *(value for cell in cells for value in (cell.shown if cell else _NONE))])
    return [
        f"## {TRIMMED.capitalize()} with one thread",
        "",
        *table(["", *(f"{name}: {what}" for name in (OURS, NUMPY) for what in _HEAD)], rows),
    ]


def _many(measured: Measured, plan: Plan) -> list[str]:
    rows = [[o, *measured[OURS, plan.threads, o, plan.many].shown] for o in OPERATIONS]
    return [
        f"## Concordat at N = {plan.many}, {plan.threads} threads",
        "",
        f"One call each, for the memory. There are {max(plan.updates)} files, so every update is there "
        f"{plan.many // max(plan.updates)} times, and what depends on how they lie to each other is not typical. "
        f"{CAF_WEIGHTS} among the targets are of {CAF_UPDATES} unlike ones, each a tenth longer than the last, which "
        "takes as many steps as any.",
        "",
        *table(["operation", *_HEAD], rows),
    ]


def _notes(plan: Plan) -> list[str]:
    n = max(plan.updates)
    need = 4e-9 * n * (n - faulty(n)) * plan.size
    return [
        f"ByzFL's NNM gathers N × (N − f) × P values: {need:.0f} GB at N = {n}, so it was not run there, nor was its "
        "CAF. Flower's serverapp computes distances as ‖x‖² + ‖y‖² − 2xy in float32: fast, and wrong for whole models, "
        "whose norm is large beside their differences. What the trimmed mean can reach beside ByzFL's: "
        "[decision 23](../decisions/0023-sorting-few-and-many.md).",
        "",
    ]
