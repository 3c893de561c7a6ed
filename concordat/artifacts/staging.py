"""Folders that appear complete or not at all."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def staged(target: Path) -> Iterator[Path]:
    """Make a new folder beside `target` that is renamed to it on success and removed on failure.

    Whoever comes second finds the target made and drops its own copy. Left-overs of processes that were killed are
    removed: a folder whose lock nobody holds has no owner.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{target.name}.part-"
    parent = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(parent, fcntl.LOCK_EX)
        _sweep(target.parent, prefix)
        part = Path(tempfile.mkdtemp(dir=target.parent, prefix=prefix))
        lock = os.open(part, os.O_RDONLY | os.O_DIRECTORY)
        fcntl.flock(lock, fcntl.LOCK_EX)
        fcntl.flock(parent, fcntl.LOCK_UN)
        try:
            yield part
            part.chmod(0o755)
            os.fsync(lock)
            _rename(part, target)
            os.fsync(parent)
        finally:
            shutil.rmtree(part, ignore_errors=True)
            os.close(lock)
    finally:
        os.close(parent)


def _rename(part: Path, target: Path) -> None:
    try:
        part.rename(target)
    except OSError:
        if not target.is_dir():
            raise


def _sweep(folder: Path, prefix: str) -> None:
    for left in folder.iterdir():
        if not left.name.startswith(prefix) or left.is_symlink() or not left.is_dir():
            continue
        handle = os.open(left, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(left, ignore_errors=True)
        except BlockingIOError:
            pass  # in use
        finally:
            os.close(handle)
