"""A virtual machine of a distribution as it installs itself: systemd and control groups of version 2.

Its root file system is made natively, by the code of the chroot check; only the guest's own life is emulated where
this machine has no hardware virtualization.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from concordat_devcluster import processes, tools
from concordat_devcluster.golang import find_go
from concordat_devcluster.paths import cache
from concordat_devcluster.prerequisites import Need
from tests.machines.chroots import CHECKOUT, VARIABLES, Chroot, Failed, System, check_out, make, output, prerequisites

PACKAGES = "dbus,iproute2,kmod,linux-image-amd64,openssh-server,procps,sudo,systemd-sysv,udev"
CACHE = "/srv/cache"
"""XDG_CACHE_HOME of everybody in the guest."""
PYTHON = f"{CHECKOUT}/.venv/bin/python"
DISK_GB = 40
"""Sparse: what the README's two commands need, where they are run."""
KVM_BOOT_SECONDS = 30
"""Hardware virtualization boots in ten; a machine that takes longer only pretends to have it."""
BOOT_SECONDS = 1500
RUN_SECONDS = 4 * 3600
CONSOLE_LINES = 15
_COLOURS = re.compile(r"\x1b\[[0-9;]*[A-Za-z]|\r")
_EMULATED = ("-accel", "tcg,thread=multi,tb-size=1024", "-cpu", "Westmere,+rdrand")
_VIRTUALIZED = ("-accel", "kvm", "-cpu", "host")
_NOT_NEEDED = ("torch", "triton", "nvidia-", "cuda-", "mypy", "ruff", "transformers", "scikit-learn", "scipy", "peft")
"""Packages that are large and that no command of this check imports."""
_LOCK = f"""
awk -v out="{" ".join(_NOT_NEEDED)}" '
    /^[a-z]/ {{ keep = 1; n = split(out, names, " "); for (i = 1; i <= n; i++) if (index($0, names[i]) == 1) keep = 0 }}
    keep' requirements/dev.txt"""
_INSTALL = f"""
cd {CHECKOUT}
python3 -m venv .venv
.venv/bin/pip install --quiet --require-hashes -r requirements/uv.txt
{_LOCK} > /tmp/lock.txt
.venv/bin/uv pip install --quiet --python .venv/bin/python --no-deps --require-hashes -r /tmp/lock.txt
.venv/bin/uv pip install --quiet --python .venv/bin/python --no-deps --no-build-isolation -e .
touch .venv/.ready
"""
_PROGRAMS = "from concordat_devcluster import tools, golang; go = golang.find_go(); "
_PROGRAMS += "print(*(tools.folder_name(m, go) for m in tools.MODULES_OF_A_NODE))"
_PAUSE = "from concordat_devcluster import images; from concordat_devcluster.progress import Silent; "
_PAUSE += "images.build(Silent(), ('pause',))"


@dataclass(frozen=True)
class Guest:
    """A virtual machine, from before it has booted."""

    folder: Path
    port: int
    process: subprocess.Popen[bytes]
    accelerated: bool
    """Whether by hardware virtualization."""
    how: str
    """The same in words, with the reason."""

    def ssh(self, *options: str, user: str = "root") -> list[str]:
        """Return the command that runs its further words, joined, in a login session of their own."""
        quiet = ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"]
        patient = ["-o", "ConnectTimeout=60", "-o", "ServerAliveInterval=60", "-o", "ServerAliveCountMax=10"]
        place = ["-i", str(self.folder / "key"), "-p", str(self.port), f"{user}@127.0.0.1"]
        return ["ssh", *quiet, *options, *patient, *place]

    def run(self, script: str, *options: str, user: str = "root", typed: str = "") -> str:
        """Return what a shell script prints. options: ssh's. typed: its input. Raises Failed with its last lines."""
        command = [*self.ssh(*options, user=user), f"export XDG_CACHE_HOME={CACHE}; cd {CHECKOUT}; set -e; {script}"]
        try:
            done = subprocess.run(
                command,
                input=typed,
                capture_output=True,
                text=True,
                errors="replace",
                check=False,
                timeout=RUN_SECONDS,
            )
        except subprocess.TimeoutExpired:
            raise Failed(f"waited {RUN_SECONDS} s for the end of: {script}") from None
        if done.returncode:
            tail = "\n    ".join((done.stdout + done.stderr).splitlines()[-15:])
            raise Failed(f"exit status {done.returncode} of: {script}\n    {tail}")
        return done.stdout.strip()

    def boot_id(self) -> str | None:
        """Name this boot, if the machine answers."""
        command = [*self.ssh("-o", "ConnectTimeout=10"), "cat /proc/sys/kernel/random/boot_id"]
        try:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=60
            )
        except subprocess.TimeoutExpired:
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    def wait_for_boot(self, seconds: float, last: str | None = None) -> None:
        """Wait for an answer to ssh from another boot than `last`. Raises Failed."""
        deadline = time.monotonic() + seconds
        while self.boot_id() in (None, last):
            if self.process.poll() is not None:
                words = (self.folder / "qemu.log").read_text(errors="replace").split("\n")
                raise Failed(f"qemu ended with status {self.process.returncode}: {words[0]}")
            if time.monotonic() > deadline:
                raise Failed(f"waited {seconds:.0f} s for an answer to ssh from a {'new ' if last else ''}boot")
            time.sleep(2)


def console(folder: Path) -> str:
    """Return the end of what the guest of a folder has printed to its serial console."""
    log = folder / "console.log"
    lines = _COLOURS.sub("", log.read_text(errors="replace")).splitlines() if log.is_file() else []
    return "\n".join(f"    {line}" for line in lines[-CONSOLE_LINES:])


def needs() -> list[Need]:
    """Return what this machine needs for guests, beside what the embedded cluster needs of it."""
    return [
        _program("qemu-system-x86_64", "runs the virtual machines", "qemu-system-x86"),
        _program("mke2fs", "writes their disks", "e2fsprogs"),
        _program("ssh", "runs commands in them", "openssh-client"),
    ]


def _program(name: str, why: str, package: str) -> Need:
    return Need(name, why, lambda: processes.find_program(name) is not None, (package,))


def prepare(system: System, folder: Path) -> str:
    """Make the disk of a guest and a key to it in `folder`, and say what is on it. Raises Failed."""
    chroot = make(system, folder, *PACKAGES.split(","))
    check_out(chroot)
    prerequisites(chroot)
    chroot.run("sh", "-ec", _INSTALL)
    _copy_programs(chroot)
    chroot.run("env", f"XDG_CACHE_HOME={CACHE}", PYTHON, "-c", _PAUSE)
    output(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / "key")])
    _configure(chroot)
    chroot.run("useradd", "--create-home", "--shell", "/bin/bash", "dev")
    for home, owner in (("root", 0), ("home/dev", 1000)):
        keys = chroot.root / home / ".ssh/authorized_keys"
        keys.parent.mkdir(exist_ok=True)
        keys.parent.chmod(0o700)
        shutil.copyfile(folder / "key.pub", keys)
        for path in (keys.parent, keys):
            os.chown(path, owner, owner)
    for kind in ("vmlinuz", "initrd.img"):
        (image,) = sorted((chroot.root / "boot").glob(f"{kind}-*"))
        shutil.copyfile(image, folder / kind)
    disk = folder / "disk.img"
    output(["mke2fs", "-q", "-t", "ext4", "-d", str(chroot.root), str(disk), f"{DISK_GB}G"])
    shutil.rmtree(chroot.root)
    return f"{disk.stat().st_blocks * 512 / 1e9:.1f} GB: {system.name}, the node's programs, the pause image"


def _copy_programs(chroot: Chroot) -> None:
    """Copy this machine's programs of the node, under the names that they have for the guest's Go."""
    environment = [f"PYTHONPATH={CHECKOUT}/devcluster", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"]
    names = chroot.run("env", *environment, PYTHON, "-c", _PROGRAMS).split()
    target = chroot.root / CACHE.removeprefix("/") / "concordat/tools"
    for module, name in zip(tools.MODULES_OF_A_NODE, names, strict=True):
        shutil.copytree(cache() / "tools" / tools.folder_name(module, find_go()), target / name)


def _configure(chroot: Chroot) -> None:
    settings = {name: value for name, value in os.environ.items() if VARIABLES.fullmatch(name)}
    for name, text in {
        "etc/environment": "".join(f'{name}="{value}"\n' for name, value in sorted(settings.items())),
        "etc/hostname": "guest\n",
        "etc/fstab": "/dev/vda / ext4 defaults 0 1\n",
        # The resolver of qemu's network asks this machine's, which may listen on its loopback only.
        "etc/resolv.conf": "nameserver 10.0.2.3\n",
        "etc/systemd/network/all.network": "[Match]\nName=en* eth*\n[Network]\nDHCP=yes\n",
        "etc/sudoers.d/dev": "dev ALL=(ALL) NOPASSWD: ALL\n",
        # A node that stayed in the session of whoever started it would end with it.
        "etc/systemd/logind.conf.d/kill.conf": "[Login]\nKillUserProcesses=yes\nKillExcludeUsers=\n",
    }.items():
        (chroot.root / name).parent.mkdir(parents=True, exist_ok=True)
        (chroot.root / name).write_text(text)
    chroot.run("systemctl", "enable", "systemd-networkd.service")


@contextmanager
def running(folder: Path) -> Iterator[Guest]:
    """Boot the guest that was prepared in `folder`; it ends with the block, or with this thread. Raises Failed."""
    reason = "/dev/kvm cannot be written to"
    if os.access("/dev/kvm", os.W_OK):
        with _started(folder, _VIRTUALIZED, "hardware virtualization") as guest:
            try:
                guest.wait_for_boot(KVM_BOOT_SECONDS)
            except Failed as error:
                reason = str(error)
            else:
                yield guest
                return
    with _started(folder, _EMULATED, f"emulated, since hardware virtualization does not work: {reason}") as guest:
        guest.wait_for_boot(BOOT_SECONDS)
        yield guest


@contextmanager
def _started(folder: Path, options: Sequence[str], how: str) -> Iterator[Guest]:
    port, log = processes.free_port(), folder / "qemu.log"
    command = ["qemu-system-x86_64", *options, "-smp", "2", "-m", "8G", "-display", "none", "-monitor", "none"]
    command += ["-kernel", str(folder / "vmlinuz"), "-initrd", str(folder / "initrd.img")]
    command += ["-append", "root=/dev/vda rw console=ttyS0", "-serial", f"file:{folder / 'console.log'}"]
    command += ["-drive", f"file={folder / 'disk.img'},if=virtio,format=raw,cache=unsafe"]
    command += ["-netdev", f"user,id=net,hostfwd=tcp:127.0.0.1:{port}-:22", "-device", "virtio-net,netdev=net"]
    log.unlink(missing_ok=True)
    process = processes.start(command, log)
    try:
        yield Guest(folder, port, process, options is _VIRTUALIZED, how)
    finally:
        processes.stop(process, 10)
