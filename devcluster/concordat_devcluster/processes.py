"""Child processes that write to a log and do not outlive their parent."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path

from concordat_devcluster.errors import DevclusterError, log_tail

_LIBC = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG = 1
POLL_SECONDS = 0.05
SAY_SECONDS = 30.0
_ANSWER_SECONDS = 60


def die_with_parent() -> None:
    """Ask the kernel to kill the calling process when its parent thread ends. For `preexec_fn`."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def find_program(name: str) -> str | None:
    """Return the path of a program; the sbin folders count, which the PATH of many users lacks."""
    return shutil.which(name, path=path_with_sbin(os.environ.get("PATH", os.defpath)))


def path_with_sbin(path: str) -> str:
    """Return a PATH with the folders of an administrator's programs after its own."""
    return os.pathsep.join([path, "/usr/local/sbin", "/usr/sbin", "/sbin"])


def start(command: Sequence[str | Path], log: Path, path: str | None = None) -> subprocess.Popen[bytes]:
    """Start a program that dies with this thread, both outputs appended to `log`; `path`: its PATH."""
    environment = os.environ | ({"PATH": path} if path else {})
    with log.open("ab") as output:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            preexec_fn=die_with_parent,
        )


def stop(process: subprocess.Popen[bytes], grace_seconds: float) -> None:
    """Terminate a child, kill it after the grace, and collect it."""
    process.terminate()
    try:
        process.wait(grace_seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_for(
    what: str,
    ready: Callable[[], bool],
    seconds: float,
    alive: Callable[[], bool],
    log: Path,
    say: Callable[[str], None] = lambda _: None,
) -> None:
    """Wait until `ready`; DevclusterError with the log's end when time runs out or `alive` is no longer true.

    say: is told every half minute what is waited for.
    """
    said = time.monotonic()
    deadline = said + seconds
    while not ready():
        if time.monotonic() - said >= SAY_SECONDS:
            said = time.monotonic()
            say(f"still waiting for {what}, which may take {seconds:.0f} s; its log: {log}")
        if not alive():
            raise DevclusterError(f"{what} ended while starting; the end of {log}:{log_tail(log)}")
        if time.monotonic() > deadline:
            raise DevclusterError(f"{what} was not ready after {seconds:.0f} s; the end of {log}:{log_tail(log)}")
        time.sleep(POLL_SECONDS)


def answers(url: str, context: ssl.SSLContext | None = None) -> bool:
    """Return whether an HTTP GET is answered with success, within what a machine a tenth as fast needs."""
    try:
        with urllib.request.urlopen(url, timeout=_ANSWER_SECONDS, context=context):  # noqa: S310 - our own loopback URLs
            return True
    except (urllib.error.URLError, OSError):
        return False
