"""`python -m bench.recovery`: crashes, fail-over and idle seconds with 10 sites; prints and writes the report."""

from __future__ import annotations

import argparse
import asyncio
import os
import time
from pathlib import Path
from statistics import median

from bench.federation.nodes import Times
from bench.federation.world import World
from bench.machine import about, table, write_report
from bench.recovery.measure import LIMIT_SECONDS, Recovered, crashes, failover, idle, standstill

OUT = Path(__file__).resolve().parents[2] / "docs" / "benchmarks" / "recovery.md"
SITES = 10
CRASH_SECONDS, FAILOVER_SECONDS, IDLE_SECONDS = 5.0, 15.0, 5.0


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5, help="rounds of each kind")
    parser.add_argument("--out", type=Path, default=OUT, help="the Markdown file to write")
    flags = parser.parse_args()
    started, load = time.monotonic(), os.getloadavg()[0]
    found = asyncio.run(run(flags.runs))
    report = lines(found)
    print("\n".join(report))
    write_report(
        flags.out,
        [
            "# Crashes, fail-over and idle seconds",
            "",
            "Written by `make bench-recovery`; do not edit.",
            "",
            *(f"- {line}" for line in about("kopf", "kubernetes")),
            f"- Took {(time.monotonic() - started) / 60:.0f} minutes; load by other programs before: {load:.1f}.",
            "",
            f"Rounds of {SITES} sites, set up as in [scale.md](scale.md); Jobs take 2 to 5 s by themselves. Times are "
            "medians in seconds. A killed operator is restarted at once under its own name, as a container is; what "
            "counts is the API server's log of the first write that is neither a Lease nor an Event.",
            "",
            *report,
        ],
    )


async def run(runs: int) -> Recovered:
    """Run so many rounds of each kind."""
    found = Recovered()
    async with World(SITES, Times((2, 5), (2, 5))) as world:
        await world.progress.until(lambda: len(world.progress.ready) > SITES, LIMIT_SECONDS)
        for number in range(runs):
            await idle(world, f"idle-{number}", found)
            print(f"idle {number}: {found.idle}", flush=True)
        for number in range(runs):
            await crashes(world, f"crash-{number}", found)
            print(f"crash {number}: {found.crash}", flush=True)
        standby = world.replica("operator-1")
        for number in range(runs):
            standby = await failover(world, f"failover-{number}", found, standby)
            print(f"fail-over {number}: {found.failover}", flush=True)
        for number in range(runs):
            standby = await standstill(world, f"standstill-{number}", found, standby)
            print(f"standstill {number}: {found.aggregates}", flush=True)
    return found


def lines(found: Recovered) -> list[str]:
    """Return the tables, in Markdown."""
    every = [seconds for values in found.crash.values() for seconds in values]
    idle_sum = sum(median(values) for values in found.idle.values())
    goals = [
        ("crash to the next useful write", median(every), CRASH_SECONDS),
        ("fail-over to the standby's first write, its Lease", median(found.lease), FAILOVER_SECONDS),
        ("fail-over to its next useful write", median(found.failover), FAILOVER_SECONDS),
        ("of a round, seconds in which none of its Jobs runs", idle_sum, IDLE_SECONDS),
        ("most aggregator Jobs of a round whose leader stood still", float(max(found.aggregates)), 1.0),
    ]
    return [
        "## Goals",
        "",
        *table(
            ["what", "found", "asked", ""],
            [
                [what, f"{value:.1f}", f"≤ {most:g}", "met" if value <= most else "**missed**"]
                for what, value, most in goals
            ],
        ),
        "## Crash",
        "",
        *table(
            ["killed", "runs", "median", "worst"],
            [
                [moment, str(len(values)), f"{median(values):.1f}", f"{max(values):.1f}"]
                for moment, values in found.crash.items()
            ],
        ),
        "## Seconds of a round in which none of its Jobs runs",
        "",
        *table(
            ["step", "median", "worst"],
            [[step, f"{median(values):.1f}", f"{max(values):.1f}"] for step, values in found.idle.items()],
        ),
    ]


if __name__ == "__main__":
    main()
