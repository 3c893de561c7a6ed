"""Which instruction set torch computes with: training ends in slightly different weights on another one.

`python -m concordat_learning.processor` prints the one in use, for example AVX512, AVX2, or NO AVX.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

VARIABLES = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA")
"""Read when torch is imported: they hold its kernels, and those of oneDNN, to an older instruction set."""
AVX2 = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}
BASELINE = {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41"}


def another(in_use: str, processor: str | None = None) -> Mapping[str, str]:
    """Return the variables that show another processor's results on this one, where it has a second instruction set.

    `in_use` is what torch computes with now; `processor` the text of /proc/cpuinfo, by default this machine's. torch
    believes the variables: AVX2 on a processor without it would end in an illegal instruction.
    """
    known = Path("/proc/cpuinfo").read_text() if processor is None else processor
    return AVX2 if in_use != "AVX2" and "avx2" in known.split() else BASELINE


def in_use() -> str:
    """Return what torch computes with in this environment; asks a process of its own, so that torch stays out."""
    command = [sys.executable, "-m", "concordat_learning.processor"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    import torch

    print(torch.backends.cpu.get_cpu_capability())
