"""A virtual machine of a distribution as it installs itself: systemd and control groups of version 2.

Its root file system is made natively, by the code of the chroot check; only the guest's own life is emulated where
this machine has no hardware virtualization.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from chroots import CHECKOUT, Chroot, Failed, System, check_out, make, output, prerequisites

from concordat_devcluster import tools
from concordat_devcluster.golang import find_go
from concordat_devcluster.paths import cache
from concordat_devcluster.processes import free_port

PACKAGES = "dbus,iproute2,kmod,linux-image-amd64,openssh-server,sudo,systemd-sysv,udev"
CACHE = "/srv/cache"
"""XDG_CACHE_HOME of everybody in the guest."""
PYTHON = f"{CHECKOUT}/.venv/bin/python"
DISK_GB = 16
KVM_BOOT_SECONDS = 60
BOOT_SECONDS = 1500
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
    """A running virtual machine."""

    port: int
    key: Path
    console: Path
    accelerated: bool
    """Whether by hardware virtualization."""

    def ssh(self, *options: str, user: str = "root") -> list[str]:
        """Return the command that runs its further words, joined, in a login session of their own."""
        quiet = ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"]
        patient = ["-o", "ConnectTimeout=60", "-o", "ServerAliveInterval=60"]
        place = ["-i", str(self.key), "-p", str(self.port), f"{user}@127.0.0.1"]
        return ["ssh", *quiet, *patient, *options, *place]

    def run(self, script: str) -> str:
        """Return what a shell script prints that root runs. Raises Failed with its last lines."""
        return output([*self.ssh(), f"export XDG_CACHE_HOME={CACHE}; cd {CHECKOUT}; set -e; {script}"])

    def boot_id(self) -> str | None:
        """Name this boot, if the machine answers."""
        command = [*self.ssh("-o", "ConnectTimeout=10"), "cat /proc/sys/kernel/random/boot_id"]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else None


def prepare(system: System, folder: Path) -> Path:
    """Make the disk of a guest, with a key in `folder`; its kernel lies beside it. Raises Failed."""
    chroot = make(system, folder, *PACKAGES.split(","))
    check_out(chroot)
    prerequisites(chroot)
    chroot.run("sh", "-ec", _INSTALL)
    _copy_programs(chroot)
    chroot.run("env", f"XDG_CACHE_HOME={CACHE}", PYTHON, "-c", _PAUSE)
    output(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / "key")])
    _configure(chroot.root)
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
    return disk


def _copy_programs(chroot: Chroot) -> None:
    """Copy this machine's programs of the node, under the names that they have for the guest's Go."""
    environment = [f"PYTHONPATH={CHECKOUT}/devcluster", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"]
    names = chroot.run("env", *environment, PYTHON, "-c", _PROGRAMS).split()
    target = chroot.root / CACHE.removeprefix("/") / "concordat/tools"
    for module, name in zip(tools.MODULES_OF_A_NODE, names, strict=True):
        shutil.copytree(cache() / "tools" / tools.folder_name(module, find_go()), target / name)


def _configure(root: Path) -> None:
    for name, text in {
        "etc/hostname": "guest\n",
        "etc/fstab": "/dev/vda / ext4 defaults 0 1\n",
        "etc/systemd/network/all.network": "[Match]\nName=en* eth*\n[Network]\nDHCP=yes\n",
        "etc/sudoers.d/dev": "dev ALL=(ALL) NOPASSWD: ALL\n",
        # A node that stayed in the session of whoever started it would end with it.
        "etc/systemd/logind.conf.d/kill.conf": "[Login]\nKillUserProcesses=yes\nKillExcludeUsers=\n",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    wanted = root / "etc/systemd/system/multi-user.target.wants/systemd-networkd.service"
    wanted.unlink(missing_ok=True)
    wanted.symlink_to("/lib/systemd/system/systemd-networkd.service")


@contextmanager
def running(folder: Path) -> Iterator[Guest]:
    """Boot the guest that was prepared in `folder`; it ends with the block. Raises Failed."""
    for options, seconds in ((_VIRTUALIZED, KVM_BOOT_SECONDS), (_EMULATED, BOOT_SECONDS)):
        if options is _VIRTUALIZED and not os.access("/dev/kvm", os.W_OK):
            continue
        process, guest = _start(folder, options)
        try:
            if _booted(process, guest, seconds):
                yield guest
                return
        finally:
            process.kill()
            process.wait()
    tail = "\n    ".join(guest.console.read_text(errors="replace").splitlines()[-20:])
    raise Failed(f"the guest answered no ssh in {BOOT_SECONDS} s; the end of its console:\n    {tail}")


def _start(folder: Path, options: tuple[str, ...]) -> tuple[subprocess.Popen[bytes], Guest]:
    port, console = free_port(), folder / "console.log"
    command = ["qemu-system-x86_64", *options, "-smp", "2", "-m", "8G", "-display", "none", "-monitor", "none"]
    command += ["-kernel", str(folder / "vmlinuz"), "-initrd", str(folder / "initrd.img")]
    command += ["-append", "root=/dev/vda rw console=ttyS0", "-serial", f"file:{console}"]
    command += ["-drive", f"file={folder / 'disk.img'},if=virtio,format=raw,cache=unsafe"]
    command += ["-netdev", f"user,id=net,hostfwd=tcp:127.0.0.1:{port}-:22", "-device", "virtio-net,netdev=net"]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    return process, Guest(port, folder / "key", console, options is _VIRTUALIZED)


def _booted(process: subprocess.Popen[bytes], guest: Guest, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while guest.boot_id() is None:
        if time.monotonic() > deadline or process.poll() is not None:
            return False
        time.sleep(2)
    return True
