"""`python -m bench.scale 10 100 1000`: a round of each size, measured; prints tables and writes the report."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import time
from dataclasses import asdict
from pathlib import Path

from bench.federation.nodes import Times
from bench.scale.measure import Measured, measure
from bench.scale.report import lines, write

OUT = Path(__file__).resolve().parents[2] / "docs" / "benchmarks" / "scale.md"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sites", type=int, nargs="*", default=[10, 100, 1000], help="sizes of the rounds")
    parser.add_argument("--limit", type=float, default=1800, help="most seconds to wait for one stage")
    parser.add_argument("--out", type=Path, default=OUT, help="the Markdown file to write")
    parser.add_argument("--json", type=Path, help="also write what was measured to this file")
    flags = parser.parse_args()
    started, load, measured = time.monotonic(), os.getloadavg()[0], list[Measured]()

    def say(text: str) -> None:
        print(f"[{time.monotonic() - started:6.0f} s] {text}", flush=True)

    for sites in flags.sites:
        measured.append(asyncio.run(measure(sites, Times(), flags.limit, say)))
        if flags.json is not None:
            flags.json.write_text(json.dumps([asdict(m) for m in measured], indent=1) + "\n")
    print("\n".join(lines(measured)))
    write(flags.out, measured, (time.monotonic() - started) / 60, load)


if __name__ == "__main__":
    main()
