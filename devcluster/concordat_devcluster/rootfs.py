"""The base of all images: a small Debian from the package archive, for a machine that reaches no image registry."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
from pathlib import Path

from concordat_devcluster.dockerfile import digest
from concordat_devcluster.errors import DevclusterError

SUITE = "bookworm"
PACKAGES = ("busybox-static", "ca-certificates", "python3", "python3-venv")
_HOST_SOURCES = (Path("/etc/apt/sources.list"), Path("/etc/apt/sources.list.d/debian.sources"))
_OPTIONS = (
    "--variant=minbase",
    f"--include={','.join(PACKAGES)}",
    *(f"--dpkgopt=path-exclude=/usr/share/{folder}/*" for folder in ("doc", "info", "locale", "man")),
    "--dpkgopt=path-include=/usr/share/doc/*/copyright",
    # Where the packages came from is this machine's matter.
    '--customize-hook=rm -rf "$1"/etc/apt/sources.list* "$1"/etc/apt/apt.conf.d/99mmdebstrap "$1"/var/log/*',
    '--customize-hook=rm -f "$1"/etc/resolv.conf "$1"/etc/hostname',
)
_PROXY = re.compile(r'^Acquire::(?:https?::|Check-|Retries|ForceIPv).*".+";$')


def key() -> str:
    """Changes when the base must be made anew."""
    return digest([SUITE, platform.machine(), *_OPTIONS])


def make(archive: Path) -> None:
    """Write the root file system as a tar archive. Raises DevclusterError."""
    if shutil.which("mmdebstrap") is None:
        raise DevclusterError(
            "mmdebstrap, which makes the images' base, is not installed: `apt-get install mmdebstrap`"
        )
    done = subprocess.run(command(archive), capture_output=True, text=True, check=False)
    if done.returncode:
        tail = "\n    ".join(done.stderr.splitlines()[-20:])
        raise DevclusterError(
            f"mmdebstrap could not make a Debian {SUITE}. It needs Debian's packages, from the sources and with the "
            f"proxy that apt has on this machine. Its last lines:\n    {tail}"
        )


def command(archive: Path) -> list[str]:
    """The command line, with apt's sources where this is the same Debian, and its proxy."""
    return [
        "mmdebstrap",
        *_OPTIONS,
        *(f"--aptopt={line}" for line in _apt_settings()),
        SUITE,
        str(archive),
        *_sources(),
    ]


def _sources() -> list[str]:
    release = platform.freedesktop_os_release()
    if (release.get("ID"), release.get("VERSION_CODENAME")) != ("debian", SUITE):
        return []  # mmdebstrap's own choice: Debian's public archive
    return [str(path) for path in _HOST_SOURCES if path.is_file() and path.read_text().strip()]


def _apt_settings() -> list[str]:
    if shutil.which("apt-config") is None:
        return []
    dump = subprocess.run(["apt-config", "dump", "Acquire"], capture_output=True, text=True, check=False).stdout
    return apt_settings(dump)


def apt_settings(dump: str) -> list[str]:
    """The lines of `apt-config dump` that say how to reach an archive."""
    return [line for line in dump.splitlines() if _PROXY.match(line)]
