"""The operator's process, as its chart starts it, and what the kernel and its metrics say of it."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from concordat_devcluster.processes import free_port, start, stop

HUB = "concordat"
IMAGE = "registry.example/concordat/learning@sha256:" + "1" * 64
_LOOP = "concordat_event_loop_longest_block_seconds"
_PRIORITY = -10
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Usage:
    """CPU time and memory that a process used so far."""

    cpu_seconds: float
    peak_mib: float
    rss_mib: float
    descriptors: int


class Operator:
    """One replica. `favoured`: before all other processes, where this user may say so."""

    def __init__(self, kubeconfig: Path, registry_url: str, folder: Path, name: str, *, favoured: bool) -> None:
        self.name, self.port = name, free_port()
        self.exits = 0
        """Number of times it ended by itself, as an operator does that cannot run."""
        self.log = folder / f"{name}.log"
        settings = {
            "KUBECONFIG": str(kubeconfig),
            "POD_NAME": name,
            "CONCORDAT_NAMESPACE": HUB,
            "CONCORDAT_REGISTRY_URL": registry_url,
            "CONCORDAT_OPERATOR_IMAGE": IMAGE.replace("learning", "operator"),
            "CONCORDAT_LEARNING_IMAGE": IMAGE,
            "CONCORDAT_HTTP_PORT": str(self.port),
        }
        variables = [f"{key}={value}" for key, value in settings.items()]
        self._favoured = favoured
        self._command = ["env", *variables, sys.executable, "-m", "concordat_operator.main"]
        self.start()

    def start(self) -> None:
        """Start the process, without waiting for it."""
        self.process, self._killed = start(self._command, self.log), False
        if self._favoured:
            _favour(self.process.pid)

    def restart_if_ended(self) -> None:
        """Start it again if it ended by itself, as a node does."""
        if self.process.poll() is not None and not self._killed:
            self.exits += 1
            self.start()

    def kill(self) -> None:
        """End it with SIGKILL; it stays away until it is started."""
        self._killed = True
        self.process.send_signal(signal.SIGCONT)
        self.process.kill()
        self.process.wait()

    def pause(self) -> None:
        """Let it stand still."""
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        self.process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """End it with SIGTERM, which gives the Lease back."""
        self.process.send_signal(signal.SIGCONT)
        stop(self.process, 20)

    @property
    def running(self) -> bool:
        """Return whether the process runs."""
        return self.process.poll() is None

    def usage(self) -> Usage:
        """Return CPU seconds, memory and open files, from /proc."""
        proc = Path(f"/proc/{self.process.pid}")
        lines = (line.split(":", 1) for line in (proc / "status").read_text().splitlines() if ":" in line)
        status = {key: value.split() for key, value in lines}
        return Usage(
            cpu_seconds=cpu_seconds(self.process.pid),
            peak_mib=int(status["VmHWM"][0]) / 1024,
            rss_mib=int(status["VmRSS"][0]) / 1024,
            descriptors=len(list((proc / "fd").iterdir())),
        )

    async def metrics(self) -> dict[str, float]:
        """Return the reconciles as "round success", and the longest block of the event loop as "block" in seconds."""
        async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{self.port}/metrics") as answer:
            text = await answer.text()
        found: dict[str, float] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name == "concordat_reconcile_total":
                    found[f"{sample.labels['controller']} {sample.labels['result']}"] = sample.value
                elif sample.name == _LOOP:
                    found["block"] = sample.value
        return found


def _favour(pid: int) -> None:
    """Give a process the CPU before others: it and, where sessions share the CPU equally, its session."""
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, pid, _PRIORITY)
        Path(f"/proc/{pid}/autogroup").write_text(str(_PRIORITY))


def cpu_seconds(pid: int) -> float:
    """Return the CPU seconds of a process so far."""
    times = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(times[11]) + int(times[12])) / _TICKS
