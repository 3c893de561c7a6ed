"""What the entry points of the Jobs share: flags, signals, exit codes and the last words of a failed Job."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import NoReturn

from concordat_learning.errors import BUG, InputError, LearningError, TransientError

_TERMINATION_LOG = Path("/dev/termination-log")
_MESSAGE_LIMIT = 1000


@dataclass(frozen=True)
class Folders:
    """Where a Job finds its inputs and leaves its result."""

    base: Path
    task: Path
    data: Path
    out: Path


class Stopped(BaseException):
    """SIGTERM. Not an Exception, so that no library's error handling swallows it."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        print(message, file=sys.stderr)
        raise SystemExit(InputError.code)


def run(job: Callable[[Folders], None], description: str, argv: Sequence[str] | None = None) -> int:
    """Run a Job with the folders of the command line and return its exit code.

    0 done; 64 bad input; 65 bad data; 70 a bug; 71 not isolated; 75 worth a retry, among it SIGTERM.
    """
    parser = _Parser(description=description)
    for name, what in (
        ("base", "the base package"),
        ("task", "task.json, contract.json and the adapters"),
        ("data", "the site's data"),
        ("out", "where result/ is left"),
    ):
        parser.add_argument(f"--{name}", type=Path, required=True, help=f"folder: {what}")
    folders = Folders(**vars(parser.parse_args(argv)))
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
