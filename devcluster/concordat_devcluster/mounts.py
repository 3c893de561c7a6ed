"""Mounts inside the node's private mount namespace."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping
from pathlib import Path

_LIBC = ctypes.CDLL(None, use_errno=True)
_BIND, _RECURSIVE, _PRIVATE, _SHARED = 4096, 16384, 1 << 18, 1 << 20

# kubelet sets these for the whole machine; it finds them as it wants them and changes nothing.
_KERNEL_SETTINGS = {
    "vm/overcommit_memory": "1",
    "vm/panic_on_oom": "0",
    "kernel/panic": "10",
    "kernel/panic_on_oops": "1",
    "kernel/keys/root_maxkeys": "1000000",
    "kernel/keys/root_maxbytes": "25000000",
}


def detach() -> None:
    """Let no mount reach the host any more, and show the processes of the calling process's PID namespace."""
    _mount(None, "/", None, _PRIVATE | _RECURSIVE)
    _mount("proc", "/proc", "proc", 0)


def prepare(state: Path) -> None:
    """Give the node its own /run, /var/log, /var/lib/kubelet and /var/lib/cni; the host's stay as they are.

    What has to survive a restart of the node lives in `state`; the rest is memory.
    """
    temporary("/run")
    Path("/run/concordat").mkdir()
    Path("/run/lock").mkdir()
    temporary("/var/log")
    shadow(Path("/var/lib"), {"kubelet": state / "kubelet", "cni": None})
    _mount(None, "/var/lib/kubelet", None, _SHARED)
    for name in ("pods", "containers"):
        Path("/var/log", name).mkdir()
    bind(state / "pod-logs", "/var/log/pods")
    for name, value in _KERNEL_SETTINGS.items():
        wanted = Path("/run/concordat", name.replace("/", "-"))
        wanted.write_text(f"{value}\n")
        if Path("/proc/sys", name).exists():
            bind(wanted, Path("/proc/sys", name))


def bind(source: str | Path, target: str | Path, *, recursive: bool = False) -> None:
    """Make `source` appear at `target`."""
    _mount(str(source), str(target), None, _BIND | (_RECURSIVE if recursive else 0))


def temporary(target: str | Path) -> None:
    """Cover a folder by an empty one in memory."""
    _mount("tmpfs", str(target), "tmpfs", 0, "mode=0755")


def shadow(folder: Path, replaced: Mapping[str, Path | None]) -> None:
    """Show `folder` as it is, but with some entries replaced, whether or not it has them.

    replaced: name → folder to show there, or None for an empty one. Nothing is created on the host.
    """
    original = Path("/run/concordat") / f"original{str(folder).replace('/', '-')}"
    original.mkdir()
    bind(folder, original, recursive=True)
    temporary(folder)
    for entry in os.scandir(original):
        target = folder / entry.name
        if entry.name in replaced:
            continue
        if entry.is_symlink():
            target.symlink_to(os.readlink(entry.path))
            continue
        target.mkdir() if entry.is_dir() else target.touch()
        bind(entry.path, target, recursive=True)
    for name, source in replaced.items():
        (folder / name).mkdir()
        if source is not None:
            bind(source, folder / name)


def _mount(source: str | None, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    texts = [text.encode() if text is not None else None for text in (source, target, kind, data)]
    if _LIBC.mount(texts[0], texts[1], texts[2], ctypes.c_ulong(flags), texts[3]):
        error = ctypes.get_errno()
        raise OSError(error, f"mount {source or ''} on {target}: {os.strerror(error)}")
