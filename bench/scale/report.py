"""The table of a measurement, and whether its goals are met."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.federation.audit import AGENTS, NODES, OPERATOR, OTHERS
from bench.machine import about, table, write_report
from bench.scale.measure import Measured

GOAL_SITES, REFERENCE_SITES = 1000, 100
STAGES = ("Ready", "asked", "consented", "submitted", "judged", "evaluated", "released", "adopted by all")


@dataclass(frozen=True)
class Goal:
    """One goal at 1,000 sites."""

    what: str
    found: float | None
    most: float
    digits: int = 0

    @property
    def row(self) -> list[str]:
        """Return the row of the table."""
        if self.found is None:
            return [self.what, "–", f"≤ {self.most:g}", "not measured"]
        met = "met" if self.found <= self.most else "**missed**"
        return [self.what, f"{self.found:.{self.digits}f}", f"≤ {self.most:g}", met]


def goals(measured: Sequence[Measured]) -> list[Goal]:
    """Return the goals; those at 1,000 sites are judged by the largest round there is."""
    largest = max(measured, key=lambda m: m.sites)
    reference = next((m for m in measured if m.sites == REFERENCE_SITES and m is not largest), None)
    ratio = None if reference is None else _cost(largest) / _cost(reference)
    block = None if largest.longest_block is None else largest.longest_block * 1000
    finished = None not in largest.stages.values() and "adopted by all" in largest.stages
    return [
        Goal(
            "seconds beyond the sites' own time until the round ends",
            largest.ended - largest.own_until_end if finished else float("inf"),
            300,
        ),
        Goal("operator's peak memory, MiB", largest.peak_mib, 400),
        Goal("longest block of the operator's event loop, ms", block, 100),
        Goal("API writes per site and round", largest.writes_per_site, 12, 1),
        Goal(f"operator's CPU time per site, times that at {REFERENCE_SITES} sites", ratio, 1.2, 2),
    ]


def lines(measured: Sequence[Measured]) -> list[str]:
    """Return the tables, in Markdown."""
    head = ["", *(f"N = {m.sites}" for m in measured)]
    largest = max(measured, key=lambda m: m.sites)

    def rows(names: Sequence[str], values: Sequence[Sequence[float | None]], digits: int) -> list[list[str]]:
        return [
            [name, *("–" if value is None else f"{value:.{digits}f}" for value in row)]
            for name, row in zip(names, values, strict=True)
        ]

    block = [None if m.longest_block is None else m.longest_block * 1000 for m in measured]
    return [
        f"## Goals, at {largest.sites} sites",
        "",
        *table(["what", "found", "asked", ""], [goal.row for goal in goals(measured)]),
        "## Seconds per stage",
        "",
        *table(
            head,
            rows(STAGES, [[m.stages.get(stage) for m in measured] for stage in STAGES], 1)
            + rows(
                [
                    "until the round ends",
                    "of it the sites' own",
                    "of it the aggregator",
                    "until every site uses the release",
                    "of it the sites' own",
                ],
                [
                    [m.ended for m in measured],
                    [m.own_until_end for m in measured],
                    [m.aggregator for m in measured],
                    [m.total for m in measured],
                    [m.own for m in measured],
                ],
                1,
            ),
        ),
        "## API writes per site",
        "",
        *table(
            head,
            rows(
                [f"by {who}" for who in (OPERATOR, AGENTS, NODES, OTHERS)]
                + ["Leases", *(f"of them Events by {who}" for who in (OPERATOR, AGENTS))],
                [[_writes(m, who) for m in measured] for who in (OPERATOR, AGENTS, NODES, OTHERS)]
                + [[_leases(m) for m in measured]]
                + [[_writes(m, who, "events") for m in measured] for who in (OPERATOR, AGENTS)],
                1,
            ),
        ),
        f"By {OPERATOR} and {AGENTS}, at {largest.sites} sites:",
        "",
        *table(
            ["write", "per site"],
            [
                [name, f"{count / largest.sites:.2f}"]
                for name, count in largest.writes.items()
                if name.startswith((OPERATOR, AGENTS)) and count >= largest.sites / 4
            ],
        ),
        "## The operator",
        "",
        *table(
            head,
            rows(
                ["CPU, ms per site", "peak memory, MiB"],
                [[1000 * _cost(m) for m in measured], [m.peak_mib for m in measured]],
                0,
            )
            + rows(["longest block of the event loop, ms"], [block], 0)
            + rows(["reconciles per site"], [[sum(m.reconciles.values()) / m.sites for m in measured]], 1)
            + rows(["registry requests of the hub per site"], [[_registry(m, "hub") for m in measured]], 1)
            + rows(["registry requests of the sites per site"], [[_registry(m, "sites") for m in measured]], 1)
            + rows(["etcd's database, MiB"], [[m.etcd_mib for m in measured]], 1)
            + rows(["times it lost its Lease and ended"], [[m.exits for m in measured]], 0),
        ),
        f"Reconciles at {largest.sites} sites: "
        + ", ".join(f"{name} {count:.0f}" for name, count in sorted(largest.reconciles.items()))
        + ".",
        "",
        "CPU seconds of the round by process:",
        "",
        *table(head, rows(list(largest.cpu), [[m.cpu.get(name) for m in measured] for name in largest.cpu], 1)),
    ]


def write(path: Path, measured: Sequence[Measured], minutes: float, load: float) -> None:
    """Write the page; `load` is the machine's before the first round."""
    write_report(
        path,
        [
            "# Rounds of 10, 100 and 1,000 sites",
            "",
            "Written by `make bench-scale`; do not edit.",
            "",
            *(f"- {line}" for line in about("kopf", "kubernetes")),
            f"- Took {minutes:.0f} minutes, with a load of {load:.1f} by other programs before it.",
            "",
            "One round for each N, on a real API server with etcd, the operator's chart with its rights and admission "
            "policy, a real registry (without the gateway), the operator's own process and the real aggregator. The "
            "agents are the real ones, all in one process. All of it shares the CPUs, the operator first (`nice`): "
            "what blocks its event loop is its own. What all sites verify alike, contract and lineage, is verified "
            "once. Jobs do nothing for 10 to 60 s (training) or 2 to 10 s (evaluation) and leave small adapters: this "
            "is the sites' own time. Writes are counted from the API server's audit log, without Leases, from the "
            "creation of the round until every site uses the release.",
            "",
            *lines(measured),
        ],
    )


def _cost(measured: Measured) -> float:
    return measured.operator_cpu / measured.sites


def _writes(measured: Measured, who: str, resource: str = "") -> float:
    mine = {name: n for name, n in measured.writes.items() if name.startswith(f"{who} ")}
    return (
        sum(n for name, n in mine.items() if not name.endswith(" leases") and name.endswith(resource)) / measured.sites
    )


def _leases(measured: Measured) -> float:
    return sum(n for name, n in measured.writes.items() if name.endswith(" leases")) / measured.sites


def _registry(measured: Measured, who: str) -> float:
    return sum(n for name, n in measured.registry.items() if name.startswith(f"{who} ")) / measured.sites
