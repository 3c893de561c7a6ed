"""The base of all images: a small Debian from the package archive, for a machine that reaches no image registry."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from pathlib import Path

from concordat_devcluster.dockerfile import digest
from concordat_devcluster.errors import DevclusterError

SUITE = "bookworm"
PACKAGES = ("busybox-static", "ca-certificates", "python3", "python3-venv")
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
"""Debian's public keys; of the package debian-archive-keyring, which a system other than Debian may lack."""
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
    if not _is_debian() and not KEYRING.is_file():
        raise DevclusterError(
            f"Debian's keys, {KEYRING}, which vouch for the packages of the images' base, are not installed: "
            "`apt-get install debian-archive-keyring`, on Fedora `dnf install debian-keyring`"
        )
    done = subprocess.run(command(archive), capture_output=True, text=True, check=False)
    if done.returncode:
        tail = "\n    ".join(done.stderr.splitlines()[-20:])
        raise DevclusterError(
            f"mmdebstrap could not make a Debian {SUITE}. It needs Debian's packages, from the sources and with the "
            f"proxy that apt has on this machine. Its last lines:\n    {tail}"
        )


def command(archive: Path) -> list[str]:
    """Return the command line, with apt's sources where this is a Debian, and its proxy.

    The archive's folder gets copies of the sources.
    """
    return [
        # Its mounts of /proc and /sys then end with it, even when it is killed. An ordinary user has no such right, and
        # mmdebstrap makes namespaces of its own for one.
        *([] if os.geteuid() else ["unshare", "--mount"]),
        "mmdebstrap",
        *_OPTIONS,
        # apt on another system trusts that system's keys only.
        *([] if _is_debian() else [f"--keyring={KEYRING}"]),
        *(f"--aptopt={line}" for line in _apt_settings()),
        SUITE,
        str(archive),
        *map(str, host_sources(SUITE, archive.parent)),
    ]


def host_sources(suite: str, folder: Path) -> list[Path]:
    """Write copies of this Debian's apt sources, for another of its suites, into a folder and return their paths.

    None where this is no Debian: mmdebstrap then chooses the public archive.
    """
    own = platform.freedesktop_os_release().get("VERSION_CODENAME", "")
    if not _is_debian() or not own:
        return []
    copies = []
    for path in _HOST_SOURCES:
        text = path.read_text() if path.is_file() else ""
        if re.search(rf"\b{own}\b", text):
            copies.append(folder / path.name)
            copies[-1].write_text(re.sub(rf"\b{own}\b", suite, text))
    return copies


def _is_debian() -> bool:
    return platform.freedesktop_os_release().get("ID") == "debian"


def _apt_settings() -> list[str]:
    if shutil.which("apt-config") is None:
        return []
    dump = subprocess.run(["apt-config", "dump", "Acquire"], capture_output=True, text=True, check=False).stdout
    return apt_settings(dump)


def apt_settings(dump: str) -> list[str]:
    """Return the lines of `apt-config dump` that say how to reach an archive."""
    return [line for line in dump.splitlines() if _PROXY.match(line)]
