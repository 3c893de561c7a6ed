"""The volume through which agent and Jobs exchange files.

The agent writes `base/` and `work/<job>/in/`, which Jobs see read-only. A Job writes `work/<job>/out/`; what it left
there is untrusted: no symbolic link is followed, only flat regular files of bounded size are read.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from concordat.protocol.locations import RESULT_FOLDER, base_folder, inputs_folder, job_folder, outputs_folder
from concordat_agent.files import write_atomically

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Without O_NONBLOCK, opening a named pipe would wait for a writer that never comes.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_BLOCK = 1 << 20


class ResultError(Exception):
    """An unusable result of a Job. The message names the file and what is wrong with it."""


class Workspace:
    """The folders of one site's workspace volume."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def base(self, digest: str) -> Path:
        """Return where the base package with that manifest digest is staged."""
        return self._root / base_folder(digest)

    def inputs(self, job: str) -> Path:
        """Return the folder that the Job mounts read-only as its task."""
        return self._root / inputs_folder(job)

    def prepare(self, job: str) -> None:
        """Make the folder of the Job's inputs. Calling it again changes nothing."""
        self.inputs(job).mkdir(parents=True, exist_ok=True)

    def empty_output(self, job: str) -> None:
        """Give the Job a new folder for its output, whatever was left in the one before."""
        out = self._root / outputs_folder(job)
        if out.is_symlink() or out.exists():
            # A pod that still writes there goes on in the trash: its mount is of the folder, not of its name.
            self._throw_away(out)
        out.mkdir()
        # The Job may run as another user of the same group; mkdir's mode is cut by the umask.
        out.chmod(0o2770)

    def difference(self, folder: Path, expected: Mapping[str, str]) -> str | None:
        """Return how what lies in a folder, at any depth, is not exactly these files, by path and `sha256:…`; or None.

        Reads all of it. Raises OSError.
        """
        if not folder.is_dir():
            return "it is gone"
        missing = dict(expected)
        for place, _, files, descriptor in os.fwalk(folder, onerror=_raise):
            for name in files:
                path = str((Path(place) / name).relative_to(folder))
                if missing.pop(path, None) is None:
                    return f"{path} was not there"
                if _hash(descriptor, name) != expected[path]:
                    return f"{path} has other bytes"
        return f"{min(missing)} is gone" if missing else None

    def write_input(self, job: str, name: str, data: bytes) -> None:
        """Write one input file, atomically."""
        write_atomically(self.inputs(job) / name, data)

    def input(self, job: str, name: str, limit: int) -> bytes | None:
        """Return a file of a Job's inputs, of at most `limit` bytes; None if there is no such regular file.

        Whoever relies on it checks its digest: that nobody has changed it since is not taken on trust.
        """
        try:
            folder = os.open((self.inputs(job) / name).parent, _DIRECTORY)
        except OSError:
            return None
        try:
            return _read(folder, Path(name).name, limit)
        except ResultError:
            return None
        finally:
            os.close(folder)

    def result(self, job: str, limits: Mapping[str, int]) -> dict[str, bytes]:
        """Read the files the Job left, `limits` being the exact names wanted and the most bytes of each.

        Raises ResultError for anything but regular files with one link and within their limits. Other files in
        the result are ignored unread.
        """
        with self._result_folder(job) as folder:
            return {name: _read(folder, name, limit) for name, limit in limits.items()}

    def jobs(self) -> set[str]:
        """Return the Jobs that have folders."""
        work = self._root / "work"
        return {entry.name for entry in os.scandir(work)} if work.is_dir() else set()

    def discard(self, jobs: Iterable[str]) -> None:
        """Take away the folders of these Jobs; quick."""
        for job in sorted(jobs):
            self._throw_away(self._root / job_folder(job))

    def discard_base(self, digest: str) -> None:
        """Take away a base package, so that the next who needs it fetches it anew; quick."""
        self._throw_away(self.base(digest))

    def _throw_away(self, folder: Path) -> None:
        trash = self._root / "trash"
        trash.mkdir(exist_ok=True)
        # Its inode is a name that nothing else in the trash can have.
        folder.rename(trash / str(folder.lstat().st_ino))

    def empty_trash(self) -> None:
        """Remove what was discarded, however deep or unreadable a Job made it; may take long.

        A pod that still runs may change it meanwhile: all is done below open folders, and no link is followed.
        """
        path = self._root / "trash"
        if not path.is_dir():
            return
        trash = os.open(path, _DIRECTORY)
        try:
            while names := os.listdir(trash):
                for name in names:
                    _flatten(name, trash)
        finally:
            os.close(trash)

    @contextmanager
    def _result_folder(self, job: str) -> Iterator[int]:
        # Step by step, so that no component a Job could have replaced is a link.
        steps = ("out", RESULT_FOLDER)
        try:
            folder = os.open(self._root / job_folder(job), _DIRECTORY)
        except OSError as error:
            raise ResultError(f"workspace folder of job {job} cannot be opened: {error.strerror}") from None
        try:
            for step in steps:
                try:
                    inner = os.open(step, _DIRECTORY, dir_fd=folder)
                except OSError as error:
                    raise ResultError(f"{step} of job {job} is no readable folder: {error.strerror}") from None
                os.close(folder)
                folder = inner
            yield folder
        finally:
            os.close(folder)


def _read(folder: int, name: str, limit: int) -> bytes:
    try:
        descriptor = os.open(name, _FILE, dir_fd=folder)
    except OSError as error:
        raise ResultError(f"result file {name} cannot be opened: {error.strerror}") from None
    try:
        attributes = os.fstat(descriptor)
        if not stat.S_ISREG(attributes.st_mode):
            raise ResultError(f"result file {name} is not a regular file")
        if attributes.st_nlink != 1:
            raise ResultError(f"result file {name} has {attributes.st_nlink} links, 1 is allowed")
        if attributes.st_size > limit:
            raise ResultError(f"result file {name} has {attributes.st_size} bytes, at most {limit} are allowed")
        data = bytearray()
        while len(data) <= limit and (block := os.read(descriptor, min(_BLOCK, limit + 1 - len(data)))):
            data += block
    finally:
        os.close(descriptor)
    if len(data) > limit:
        raise ResultError(f"result file {name} grew beyond {limit} bytes while it was read")
    return bytes(data)


def _flatten(name: str, trash: int) -> None:
    """Remove one entry of the trash; the subfolders of a folder are moved up into the trash, not entered."""
    if not _open_to_us(name, trash):
        os.unlink(name, dir_fd=trash)
        return
    folder = os.open(name, _DIRECTORY, dir_fd=trash)
    try:
        for entry in os.scandir(folder):
            # A folder can only be moved when its own mode allows it.
            if _open_to_us(entry.name, folder):
                os.rename(entry.name, str(entry.inode()), src_dir_fd=folder, dst_dir_fd=trash)
            else:
                os.unlink(entry.name, dir_fd=folder)
    finally:
        os.close(folder)
    os.rmdir(name, dir_fd=trash)


def _open_to_us(name: str, parent: int) -> bool:
    """Let us into a folder, whatever its mode; return whether it is one, not a link to one."""
    try:
        folder = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    except NotADirectoryError:
        return False
    try:
        # The mode of this very folder, which was not opened for reading: no system call does that by name.
        os.chmod(f"/proc/self/fd/{folder}", 0o700)
    finally:
        os.close(folder)
    return True


def _hash(folder: int, name: str) -> str | None:
    """Return the digest of a regular file; None for anything else."""
    try:
        descriptor = os.open(name, _FILE, dir_fd=folder)
    except OSError as error:
        if error.errno == errno.ELOOP:
            return None
        raise
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def _raise(error: OSError) -> None:
    raise error
