"""Handing over a Job's result: all of it or nothing."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from concordat.protocol.locations import RESULT_FOLDER
from concordat_learning.errors import TransientError

_TEMPORARY = ".result-tmp"


def is_published(out: Path) -> bool:
    """Return whether an earlier pod of the same Job handed over a result; a result is complete by construction."""
    return (out / RESULT_FOLDER).is_dir()


def publish(out: Path, files: Mapping[str, bytes]) -> None:
    """Leave `out`/result with these files, by one atomic rename of what is already on the disk.

    Raises TransientError if the volume does not take them.
    """
    temporary = out / _TEMPORARY
    try:
        if temporary.exists():
            shutil.rmtree(temporary)
        temporary.mkdir()
        for name, data in sorted(files.items()):
            with (temporary / name).open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        _sync(temporary)
        temporary.rename(out / RESULT_FOLDER)
        _sync(out)
    except OSError as error:
        raise TransientError(f"the result cannot be written to {out}: {error.strerror}") from error


def write_file(path: Path, data: bytes) -> None:
    """Write or replace one file, in a folder that is made: readers see all of it or what was there before.

    Raises TransientError if the volume does not take it.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
        _sync(path.parent)
    except OSError as error:
        raise TransientError(f"{path} cannot be written: {error.strerror}") from error


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
