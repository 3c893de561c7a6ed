"""What is kept about a cluster between commands: its address slot, and the process that runs it."""

from __future__ import annotations

import json
import os
import re
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path

from concordat_devcluster.errors import DevclusterError
from concordat_devcluster.paths import cache

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,28}[a-z0-9])?")


class State(StrEnum):
    """What is known about a cluster without asking it."""

    ABSENT = "absent"
    STOPPED = "stopped"
    RUNNING = "running"
    CRASHED = "crashed"
    """It was not stopped by `down`: a kill or a reboot. `up` and `down` clean up after it."""


@dataclass(frozen=True)
class Run:
    """Process 1 of a running node. A process id alone may meanwhile belong to another program."""

    pid: int
    started: int
    """In clock ticks after the boot."""
    boot: str
    tools: str
    ready: bool = False
    """Whether its start was seen through; else whoever started it ended before that."""

    @classmethod
    def of(cls, pid: int, tools: Path) -> Run:
        """Return the record of a process that runs now."""
        started = start_time(pid)
        if started is None:
            raise DevclusterError(f"process {pid}, which should become the node, ended at once")
        return cls(pid, started, boot_id(), str(tools))

    def is_alive(self, boot: str, started: int | None) -> bool:
        """Return whether it is this very process. boot: now; started: of the process that has this id now, if any."""
        return self.boot == boot and self.started == started


def root() -> Path:
    """Folder with one folder a cluster."""
    return cache() / "clusters"


def state_folder(name: str) -> Path:
    """Return the folder of a cluster; DevclusterError for a name that would not do as a host name."""
    if not _NAME.fullmatch(name):
        raise DevclusterError(
            f"{name!r} is no name for a cluster: up to 30 small letters, digits and inner dashes, like 'demo'"
        )
    return root() / name


def names() -> list[str]:
    """Return the clusters that have state, in order."""
    return sorted(path.parent.name for path in root().glob("*/cluster.json"))


def read_slot(state: Path) -> int | None:
    """Return the address slot of a cluster, if it has ever been up."""
    try:
        slot: int = json.loads((state / "cluster.json").read_text())["slot"]
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise DevclusterError(f"{state}/cluster.json is damaged ({error}): remove the folder {state}") from None
    return slot


def write_slot(state: Path, slot: int) -> None:
    """Remember the address slot of a cluster."""
    _write(state / "cluster.json", {"slot": slot})


def read_run(state: Path) -> Run | None:
    """Return the process that ran the cluster last, unless it was stopped in order."""
    try:
        return Run(**json.loads((state / "run.json").read_text()))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError):
        # Half written when the machine went down: the process is gone as well.
        return Run(pid=0, started=0, boot="", tools="")


def write_run(state: Path, run: Run) -> None:
    """Remember the process that runs the cluster."""
    _write(state / "run.json", asdict(run))


def forget_run(state: Path) -> None:
    """Record that the cluster is stopped, and that nothing is left of the process."""
    (state / "run.json").unlink(missing_ok=True)


def state_of(state: Path) -> State:
    """Return whether a cluster runs."""
    if read_slot(state) is None:
        return State.ABSENT
    run = read_run(state)
    if run is None:
        return State.STOPPED
    return State.RUNNING if run.is_alive(boot_id(), start_time(run.pid)) else State.CRASHED


def boot_id() -> str:
    """Names this boot of the machine."""
    return _BOOT_ID.read_text().strip()


def start_time(pid: int) -> int | None:
    """When a process started, in clock ticks after the boot; None: there is none, or it is dead already."""
    try:
        # The second field is the program's name in parentheses, which may itself hold parentheses and spaces.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def _write(path: Path, document: dict[str, object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".new")
    temporary.write_text(json.dumps(document) + "\n")
    os.replace(temporary, path)
