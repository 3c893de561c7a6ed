"""`python -m bench.soak --rounds 500`: rounds with faults; prints and writes what did not hold and what grew."""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from pathlib import Path

from bench.machine import about, table, write_report
from bench.soak.run import Soaked, soak
from bench.soak.samples import slope

OUT = Path(__file__).resolve().parents[2] / "docs" / "benchmarks" / "soak.md"


def main() -> int:
    """The command line; 1 if something did not hold, or rounds are missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=500)
    parser.add_argument("--sites", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=OUT, help="the Markdown file to write")
    flags = parser.parse_args()
    started = time.monotonic()

    def say(text: str) -> None:
        print(f"[{time.monotonic() - started:6.0f} s] {text}", flush=True)

    found = asyncio.run(soak(flags.rounds, flags.sites, flags.seed, say))
    report = lines(found)
    print("\n".join(report))
    write_report(
        flags.out,
        [
            "# Soak",
            "",
            "Written by `make soak`; do not edit.",
            "",
            *(f"- {line}" for line in about("kopf", "kubernetes")),
            f"- {found.ended.total()} rounds of {flags.sites} sites, seed {flags.seed}, in "
            f"{(time.monotonic() - started) / 60:.0f} minutes.",
            "",
            "Set up as in [scale.md](scale.md), with Jobs of 0.1 to 0.8 s. In each round one thing goes wrong at a "
            "random moment. After each round `tests/support/invariants.py` is asked about all objects and "
            "all files of the registry that they name. The operator is killed in the first fifth of the rounds only, "
            "and sampled every tenth round after that: its memory is that of one process.",
            "",
            *report,
        ],
    )
    # The agents that end by themselves stop the soak as Ctrl-C does.
    return 1 if found.wrong or found.ended.total() < flags.rounds else 0


def lines(found: Soaked) -> list[str]:
    """Return the report, in Markdown."""
    rows = []
    for what, samples in found.samples.items():
        line = slope([r for r, _ in samples], [v for _, v in samples])
        if line is not None:
            grew = f"{line.per_hundred:+.2f} ± {line.uncertainty:.2f}"
            rows.append([what, f"{samples[0][1]:.1f}", f"{samples[-1][1]:.1f}", grew, "yes" if line.flat else "**no**"])
    return [
        "## What must hold",
        "",
        *(
            ["It held after every round.", ""]
            if not found.wrong
            else [f"- {sentence}" for sentence in found.wrong[:50]]
        ),
        *([] if len(found.wrong) <= 50 else [f"- and {len(found.wrong) - 50} more"]),
        "",
        "## Growth",
        "",
        *table(["what", "first", "last", "per 100 rounds, 95 %", "flat"], rows),
        "## Rounds",
        "",
        *table(["ended", "rounds"], [[reason, str(count)] for reason, count in found.ended.most_common()]),
        *table(["fault", "rounds"], [[fault, str(count)] for fault, count in found.by_fault.most_common()]),
    ]


if __name__ == "__main__":
    sys.exit(main())
