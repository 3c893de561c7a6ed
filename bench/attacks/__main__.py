"""`python -m bench.attacks`: every defence against every attack, at three degrees of skew; writes the tables.

Needs the environment of requirements/bench.txt, and learning/ on the path.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

from bench.machine import clean_environment

ALPHAS = (float("inf"), 1.0, 0.1)
HOSTILE = 3
DECLARED = (1, 6)
"""Faulty sites declared where there are three: half of them, and twice as many."""
UNDER = ("none", "label flip", "IPM ×2, noise", "Min-Max unit, noise", "sybils, noise", "decoy", "adaptive")
FIRST_HONEST, HONEST = 9, 10
"""Federations without attack at each degree of skew, for what screening does to honest sites."""
Job = tuple[float, int, str, int, tuple[str, ...]]
OUT = Path(__file__).resolve().parents[2] / "docs" / "benchmarks" / "attacks.md"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[3, 4, 5], help="federations; 0 to 2 were for tuning")
    parser.add_argument("--alpha", type=float, nargs="+", default=ALPHAS, help="degrees of skew, the mildest first")
    parser.add_argument("--attack", action="append", help="only this attack, beside none; may be repeated")
    parser.add_argument("--out", type=Path, default=OUT, help="the Markdown file to write")
    flags = parser.parse_args()
    # Before numpy is imported, here and in the workers: one thread each, as the matrices are tiny.
    os.environ.clear()
    os.environ.update(clean_environment(threads=1))
    from bench.attacks.defences import CANARY, COMPARED
    from bench.attacks.hostile import ATTACKS, FRAMING, NONE
    from bench.attacks.play import play
    from bench.attacks.report import report

    known = [attack.name for attack in ATTACKS]
    if unknown := sorted(set(flags.attack or ()) - set(known)):
        parser.error(f"--attack: {unknown} unknown; there are {', '.join(known)}")
    chosen = [name for name in known if not flags.attack or name in (NONE.name, *flags.attack)]
    jobs: list[Job] = [
        (alpha, seed, name, HOSTILE, ()) for alpha in flags.alpha for seed in flags.seeds for name in chosen
    ]
    if not flags.attack:
        skewed = flags.alpha[-1]
        jobs += [(skewed, s, name, f, COMPARED) for f in DECLARED for s in flags.seeds for name in UNDER]
        more = range(FIRST_HONEST, FIRST_HONEST + HONEST)
        alone = [NONE.name, *(attack.name for attack in FRAMING)]
        jobs += [(a, seed, name, HOSTILE, (CANARY,)) for a in (*flags.alpha, 0.05) for seed in more for name in alone]
    # The longest first.
    jobs.sort(key=lambda job: job[2] != "adaptive")
    started = time.monotonic()
    results = []
    workers = len(os.sched_getaffinity(0))
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        for future in as_completed([pool.submit(play, *job) for job in jobs]):
            results.append(future.result())
            if len(results) % 20 == 0:
                print(f"{len(results)} of {len(jobs)} runs, {time.monotonic() - started:.0f} s", flush=True)
    report(flags.out, results, time.monotonic() - started)


if __name__ == "__main__":
    main()
