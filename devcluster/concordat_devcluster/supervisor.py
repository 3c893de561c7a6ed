"""The duties of process 1 of the node: start programs in order, restart them, collect the dead."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

FIRST_BACKOFF_SECONDS = 0.5
LONGEST_BACKOFF_SECONDS = 10.0
STEADY_SECONDS = 30.0
CHECK_SECONDS = 0.1
_SIGNALS = (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT)


@dataclass(frozen=True)
class Component:
    """A program of the node: started as soon as `may_start` says so, and again whenever it ends."""

    name: str
    command: Sequence[str]
    may_start: Callable[[], bool] = field(default=lambda: True)
    stop_waits: bool = False
    """Whether a stop of the node waits for its orderly end; a component without anything to save is killed."""


@dataclass
class _Running:
    component: Component
    pid: int = 0
    since: float = 0.0
    backoff: float = FIRST_BACKOFF_SECONDS
    not_before: float = 0.0


class Supervisor:
    """Runs components until it is told to stop. Must be the only one in its process that waits for children."""

    def __init__(self, components: Sequence[Component], logs: Path, environment: dict[str, str]) -> None:
        self._all = [_Running(component) for component in components]
        self._logs = logs
        self._environment = environment

    def run(self, stop_seconds: float) -> None:
        """Supervise until SIGTERM or SIGINT; then let those that have to save something end, within `stop_seconds`."""
        for number in (signal.SIGTERM, signal.SIGINT):
            # Process 1 is not sent signals that it has no handler for.
            signal.signal(number, lambda *_: None)
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        while True:
            self._start_due()
            received = signal.sigtimedwait(_SIGNALS, self._pause())
            self._collect()
            if received is not None and received.si_signo != signal.SIGCHLD:
                break
        self._stop(stop_seconds)

    def _start_due(self) -> None:
        for entry in self._all:
            if not entry.pid and time.monotonic() >= entry.not_before and entry.component.may_start():
                entry.pid = self._spawn(entry.component)
                entry.since = time.monotonic()

    def _pause(self) -> float:
        waiting = any(not entry.pid for entry in self._all)
        return CHECK_SECONDS if waiting else STEADY_SECONDS

    def _spawn(self, component: Component) -> int:
        with (self._logs / f"{component.name}.log").open("ab") as log:
            child = subprocess.Popen(
                component.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._environment,
                start_new_session=True,
                preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS),
            )
        # This supervisor collects every child itself; the object must not try to.
        child.returncode = 0
        return child.pid

    def _collect(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            for entry in self._all:
                if entry.pid == pid:
                    self._ended(entry, status)

    def _ended(self, entry: _Running, status: int) -> None:
        now = time.monotonic()
        steady = now - entry.since > STEADY_SECONDS
        entry.backoff = FIRST_BACKOFF_SECONDS if steady else min(entry.backoff * 2, LONGEST_BACKOFF_SECONDS)
        entry.pid, entry.not_before = 0, now + entry.backoff
        code = os.waitstatus_to_exitcode(status)
        print(f"{entry.component.name} ended with {code}; it starts again in {entry.backoff} s", flush=True)

    def _stop(self, seconds: float) -> None:
        for entry in self._all:
            if entry.pid:
                # etcd ends at once only when its clients have gone, and they are slow to.
                os.kill(entry.pid, signal.SIGTERM if entry.component.stop_waits else signal.SIGKILL)
        deadline = time.monotonic() + seconds
        while any(entry.pid and entry.component.stop_waits for entry in self._all):
            left = deadline - time.monotonic()
            if left <= 0:
                return
            signal.sigtimedwait((signal.SIGCHLD,), left)
            self._collect()
