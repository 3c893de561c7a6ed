"""The cluster's own subtree in the control groups, on version 1, hybrid and version 2 hosts.

At the top is `name`; below it `name/node` has the node's own programs and `name/pods` what kubelet starts.
"""

from __future__ import annotations

import errno
import os
import time
from contextlib import suppress
from pathlib import Path

from concordat_devcluster.errors import DevclusterError

ROOT = Path("/sys/fs/cgroup")
NODE, PODS = "node", "pods"
_NEEDED_V2 = ("cpu", "cpuset", "memory", "pids")
_USED_V2 = (*_NEEDED_V2, "hugetlb")
"""kubelet refuses a group that lacks one of these which the root group has."""
_OUTSIDE_REMEDY = "run the cluster directly on the host, or use one that you have (demo --context)"
_LEAVE_SECONDS = 60
"""Processes that end leave their group at last within milliseconds; the limit is for a machine that is slow or busy."""


def create(name: str, root: Path = ROOT) -> None:
    """Create the group `name`, with its two parts, at the top of every hierarchy that kubelet uses.

    Raises DevclusterError where this environment may not.
    """
    try:
        if _is_unified(root):
            for group in (root, root / name):
                group.mkdir(exist_ok=True)
                _enable(group)
            for part in (NODE, PODS):
                (root / name / part).mkdir(exist_ok=True)
            # Only a group that has no processes of its own passes controllers on, so not the node's part.
            _enable(root / name / PODS)
            return
        hierarchies = _hierarchies(root)
        if not hierarchies:
            raise DevclusterError(f"no control groups at {root}: mount them there (systemd does), or {_OUTSIDE_REMEDY}")
        for hierarchy in hierarchies:
            for part in ("", NODE, PODS):
                group = hierarchy / name / part
                group.mkdir(exist_ok=True)
                for setting in ("cpuset.cpus", "cpuset.mems"):
                    if (hierarchy / setting).is_file():
                        _write(group / setting, (hierarchy / setting).read_text())
    except OSError as error:
        raise DevclusterError(
            f"the control groups at {root} cannot be set up for the node ({error.strerror}: {error.filename}). In a "
            f"container they must be writable: start it with --privileged --cgroupns=private; or {_OUTSIDE_REMEDY}"
        ) from None


def enter(name: str, pid: int, root: Path = ROOT) -> None:
    """Move a process, and so all that it will start, to the node's part of the group: out of its login session.

    Raises DevclusterError.
    """
    hierarchies = [root] if _is_unified(root) else _hierarchies(root)
    for hierarchy in hierarchies:
        try:
            _write(hierarchy / name / NODE / "cgroup.procs", str(pid))
        except OSError as error:
            raise DevclusterError(
                f"process {pid}, the node, cannot enter the control group {hierarchy / name / NODE} "
                f"({error.strerror}): {_OUTSIDE_REMEDY}"
            ) from None


def remove(name: str, root: Path = ROOT) -> None:
    """Remove the group from every hierarchy, as soon as the last processes have left; DevclusterError: they do not."""
    hierarchies = [root] if _is_unified(root) else _hierarchies(root)
    deadline = time.monotonic() + _LEAVE_SECONDS
    left = [hierarchy / name for hierarchy in hierarchies]
    while left := [group for group in left if group.is_dir() and not _remove(group)]:
        if time.monotonic() > deadline:
            raise DevclusterError(
                f"{left[0]} still has processes after {_LEAVE_SECONDS} s: end those in its cgroup.procs files"
            )
        time.sleep(0.05)


def _is_unified(root: Path) -> bool:
    return (root / "cgroup.controllers").is_file()


def _hierarchies(root: Path) -> list[Path]:
    if not root.is_dir():
        return []
    # Several names may point at one hierarchy (cpu → cpu,cpuacct).
    return [folder for folder in sorted(root.iterdir()) if folder.is_dir() and not folder.is_symlink()]


def _enable(group: Path) -> None:
    available = (group / "cgroup.controllers").read_text().split()
    missing = [controller for controller in _NEEDED_V2 if controller not in available]
    if missing:
        raise DevclusterError(
            f"{group} offers no control group controllers {', '.join(missing)}: delegate them to this "
            f"environment, or {_OUTSIDE_REMEDY}"
        )
    wanted = " ".join(f"+{controller}" for controller in _USED_V2 if controller in available)
    deadline = time.monotonic() + _LEAVE_SECONDS
    while True:
        try:
            _write(group / "cgroup.subtree_control", wanted)
            return
        except OSError as error:
            # A file that the machine's real root group has not: this is the root of a container.
            in_container = (group / "cgroup.type").is_file()
            if error.errno != errno.EBUSY or not in_container or time.monotonic() > deadline:
                raise
        # Again until none is left: the kernel moves no process that is exiting, and others start new ones meanwhile.
        _move_aside(group)
        time.sleep(0.01)


def _move_aside(group: Path) -> None:
    """Move a group's own processes to a child: one with processes cannot pass controllers on."""
    aside = group / "init"
    aside.mkdir(exist_ok=True)
    for pid in (group / "cgroup.procs").read_text().split():
        with suppress(ProcessLookupError):  # It has ended meanwhile.
            _write(aside / "cgroup.procs", pid)


def _write(file: Path, text: str) -> None:
    try:
        file.write_text(text)
    except OSError as error:
        error.filename = str(file)  # Python names the file only where it cannot be opened.
        raise


def _remove(group: Path) -> bool:
    try:
        for folder, _, _ in os.walk(group, topdown=False):
            os.rmdir(folder)
    except OSError:
        return False
    return True
