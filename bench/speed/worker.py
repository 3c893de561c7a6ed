"""`python -m bench.speed.worker`: times one implementation in a process of its own; a JSON line for each operation."""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.speed import job
from bench.speed.inputs import read, touch
from bench.speed.operations import IMPLEMENTATIONS, JOB, OURS, Operations, reading

REPEATS, MOST, SECONDS = 5, 30, 2.0
"""At least so many timed calls, and for fast operations more, up to so many in all, until they took so long."""
_SLOW = 5.0
"""A first call that takes so many seconds is counted; of faster operations it warms up and is not."""


def measure(operation: Callable[[], Any], once: bool, beside: Callable[[], Any] | None = None) -> dict[str, Any]:
    """Seconds and processor seconds of each timed call, and the largest memory in bytes beyond what the process held
    before the call.

    `beside` is called before each, and timed as well: for a ratio of the two that the machine's moods do not change.
    """
    seconds: list[float] = []
    cpu: list[float] = []
    extra: list[int] = []
    others: list[float] = []
    while not _enough(seconds, once):
        gc.collect()
        # Give freed memory back, so that its use by the operation counts.
        ctypes.CDLL(None).malloc_trim(0)
        if beside:
            started = time.perf_counter()
            beside()
            others.append(time.perf_counter() - started)
        Path("/proc/self/clear_refs").write_text("5")
        before, started, spent = _resident("VmRSS"), time.perf_counter(), time.process_time()
        result = operation()
        seconds.append(time.perf_counter() - started)
        cpu.append(time.process_time() - spent)
        extra.append(_resident("VmHWM") - before)
        del result
    if not once and seconds[0] < _SLOW:
        del seconds[0], cpu[0], extra[0], others[:1]
    return {"seconds": seconds, "cpu": cpu, "extra": max(extra), "beside": others}


def _enough(seconds: list[float], once: bool) -> bool:
    if once or not seconds:
        return bool(seconds)
    timed = len(seconds) - (seconds[0] < _SLOW)
    return timed >= MOST or (timed >= REPEATS and sum(seconds) >= SECONDS)


def _resident(field: str) -> int:
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) * 1024


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("implementation", choices=[*IMPLEMENTATIONS, JOB])
    parser.add_argument("folder", type=Path)
    parser.add_argument("updates", type=int)
    parser.add_argument("operations", nargs="+")
    parser.add_argument("--once", action="store_true", help="one call, for its memory")
    flags = parser.parse_args()
    updates = read(flags.folder, flags.updates)
    operations: Operations
    if flags.implementation == JOB:
        operations = job.operations(updates, flags.folder)
    else:
        operations = IMPLEMENTATIONS[flags.implementation](updates)
    touch(updates)
    beside = reading(updates) if flags.implementation == OURS and not flags.once else None
    for name in flags.operations:
        if name in operations:
            found = measure(operations[name], flags.once, beside)
            print(json.dumps({"operation": name, **found}), flush=True)


if __name__ == "__main__":
    main()
