"""The cluster's own subtree in the control groups, on version 1, hybrid and version 2 hosts."""

from __future__ import annotations

import os
import time
from pathlib import Path

from concordat_devcluster.errors import DevclusterError

ROOT = Path("/sys/fs/cgroup")
_NEEDED_V2 = ("cpu", "cpuset", "memory", "pids")
_REMOVE_SECONDS = 10


def create(name: str, root: Path = ROOT) -> None:
    """Create the group `name` at the top of every hierarchy that kubelet uses."""
    if _is_unified(root):
        _enable(root)
        (root / name).mkdir(exist_ok=True)
        _enable(root / name)
        return
    for hierarchy in _hierarchies(root):
        group = hierarchy / name
        group.mkdir(exist_ok=True)
        for setting in ("cpuset.cpus", "cpuset.mems"):
            if (hierarchy / setting).is_file():
                (group / setting).write_text((hierarchy / setting).read_text())


def remove(name: str, root: Path = ROOT) -> None:
    """Remove the group from every hierarchy; waits a little for the last processes to leave."""
    hierarchies = [root] if _is_unified(root) else _hierarchies(root)
    deadline = time.monotonic() + _REMOVE_SECONDS
    left = [hierarchy / name for hierarchy in hierarchies]
    while left := [group for group in left if group.is_dir() and not _remove(group)]:
        if time.monotonic() > deadline:
            raise DevclusterError(f"{left[0]} still has processes: end those in its cgroup.procs files")
        time.sleep(0.05)


def _is_unified(root: Path) -> bool:
    return (root / "cgroup.controllers").is_file()


def _hierarchies(root: Path) -> list[Path]:
    # Several names may point at one hierarchy (cpu → cpu,cpuacct).
    return [folder for folder in sorted(root.iterdir()) if folder.is_dir() and not folder.is_symlink()]


def _enable(group: Path) -> None:
    available = (group / "cgroup.controllers").read_text().split()
    missing = [controller for controller in _NEEDED_V2 if controller not in available]
    if missing:
        raise DevclusterError(
            f"{group} offers no control group controllers {', '.join(missing)}: delegate them to this "
            "environment, or run the cluster directly on the host"
        )
    (group / "cgroup.subtree_control").write_text(" ".join(f"+{controller}" for controller in _NEEDED_V2))


def _remove(group: Path) -> bool:
    try:
        for folder, _, _ in os.walk(group, topdown=False):
            os.rmdir(folder)
    except OSError:
        return False
    return True
