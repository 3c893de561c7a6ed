"""What the entry points of the Jobs share: flags, signals, exit codes and the last words of a failed Job."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from types import FrameType
from typing import NoReturn, TypeVar

from concordat_learning.errors import BUG, InputError, LearningError, TransientError

_TERMINATION_LOG = Path("/dev/termination-log")
_MESSAGE_LIMIT = 1000
_WHAT = {
    "base": "the base package",
    "task": "task.json, contract.json and the adapters",
    "updates": "the parent's adapter, and for each site the parent's with its update added",
    "data": "the data",
    "out": "where the result is left",
}


@dataclass(frozen=True)
class Folders:
    """Where a Job finds its inputs and leaves its result."""

    base: Path
    task: Path
    data: Path
    out: Path


@dataclass(frozen=True)
class CanaryFolders:
    """Where the hub's canary check finds its inputs and leaves its report."""

    base: Path
    updates: Path
    data: Path
    out: Path


class Stopped(BaseException):
    """SIGTERM. Not an Exception, so that no library's error handling swallows it."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        print(message, file=sys.stderr)
        raise SystemExit(InputError.code)


Given = TypeVar("Given", Folders, CanaryFolders)


def run(job: Callable[[Folders], None], description: str, argv: Sequence[str] | None = None) -> int:
    """Run a site's Job with the folders of the command line and return its exit code, see `run_in`."""
    return run_in(Folders, job, description, argv)


def run_in(
    given: type[Given], job: Callable[[Given], None], description: str, argv: Sequence[str] | None = None
) -> int:
    """Run a Job with the folders of the command line, a flag for each, and return its exit code.

    0 done; 64 bad input; 65 bad data; 70 a bug; 71 not isolated; 75 worth a retry, among it SIGTERM.
    """
    parser = _Parser(description=description)
    for field in fields(given):
        parser.add_argument(f"--{field.name}", type=Path, required=True, help=f"folder: {_WHAT[field.name]}")
    folders = given(**vars(parser.parse_args(argv)))
    prepare_environment()
    previous = signal.signal(signal.SIGTERM, _stop)
    try:
        job(folders)
    except LearningError as error:
        return _fail(error.code, str(error))
    except Stopped:
        return _fail(TransientError.code, "stopped by SIGTERM before the result was complete; nothing was handed over")
    except Exception as error:
        traceback.print_exc()
        return _fail(BUG, f"bug: {type(error).__name__}: {error}")
    finally:
        signal.signal(signal.SIGTERM, previous)
    return 0


def prepare_environment() -> None:
    """Keep the libraries from looking for a network and from complaining. To be called before they are imported."""
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_DISABLE_TELEMETRY"):
        os.environ[name] = "1"
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    # They are for the libraries' authors; a site reads this log.
    warnings.filterwarnings("ignore", category=FutureWarning)


def _stop(number: int, frame: FrameType | None) -> None:
    raise Stopped


def _fail(code: int, message: str, log: Path = _TERMINATION_LOG) -> int:
    print(message, file=sys.stderr, flush=True)
    try:
        # Not created where it is missing: only kubelet knows what it is for.
        descriptor = os.open(log, os.O_WRONLY | os.O_TRUNC)
    except OSError:
        return code
    with os.fdopen(descriptor, "w") as file:
        file.write(message[:_MESSAGE_LIMIT])
    return code
