"""The embedded cluster on virtual machines with systemd and control groups of version 2: `make vm-check`.

Needs root, qemu-system-x86_64, mke2fs and 20 GB of disk at the cache folder. Where hardware virtualization works, it
also runs the README's two commands in the guest; emulated, that would take days.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import guest as guests
from chroots import CHECKOUT, SYSTEMS, Failed, System
from guest import Guest

from concordat_devcluster.paths import cache

WAIT = "--timeout=3000s"
CONCORDAT = f"{CHECKOUT}/.venv/bin/concordat"
ENVIRONMENT = f'eval "$({CONCORDAT} cluster up)"'
OBJECTS = (Path(__file__).parent / "objects.yaml").read_text()
IMAGE = """from concordat_devcluster import cluster, images
from concordat_devcluster.progress import Silent
node = cluster.up("demo")
print(images.push(Silent(), node.registry_host, node_pid=node.pid, names=("pause",))["pause"])"""
TRACES = """
cut -d ' ' -f 5 /proc/self/mountinfo | sort
ip -o link | cut -d ' ' -f 2
ip route show table all
ls -d /sys/fs/cgroup/*/
sysctl net.ipv4.ip_forward vm.overcommit_memory vm.panic_on_oom kernel.panic net.bridge 2>/dev/null || true
ls /etc /etc/cni /opt /run /var/lib /var/log 2>/dev/null || true
"""


class Check:
    """The steps of one system, in their order."""

    def __init__(self, guest: Guest) -> None:
        self.guest = guest
        self.before = ""

    def system(self) -> str:
        """Say what booted, and remember what it looks like."""
        found = self.guest.run("stat -fc %T /sys/fs/cgroup; uname -r; systemctl --version | head -1; python3 --version")
        if "cgroup2fs" not in found:
            raise Failed(f"no control groups of version 2: {found}")
        self.guest.run("modprobe br_netfilter; sysctl -q -w net.bridge.bridge-nf-call-iptables=0; rmmod br_netfilter")
        self.before = self.guest.run(TRACES)
        how = "hardware virtualization" if self.guest.accelerated else "emulated"
        return f"{how}, {', '.join(found.splitlines())}"

    def prerequisites(self) -> str:
        """Find nothing missing, and the programs of the node built."""
        return self.guest.run(f"{CONCORDAT} cluster prerequisites").strip() or "nothing is missing"

    def up(self) -> str:
        """Start the cluster; its node is Ready."""
        return self.guest.run(f"{ENVIRONMENT}; kubectl wait node --all --for=condition=Ready {WAIT}")

    def workloads(self) -> str:
        """Run a pod behind a Service, a Job that writes to a volume, and a pod without a network."""
        image = self.guest.run(f"{guests.PYTHON} -c '{IMAGE}'").splitlines()[-1]
        objects = OBJECTS.replace("IMAGE", image)
        self.guest.run(f"{ENVIRONMENT}; kubectl apply -f - <<'END'\n{objects}\nEND")
        self.guest.run(
            f"{ENVIRONMENT}; kubectl wait job/writer --for=condition=Complete {WAIT}; "
            f"kubectl wait pod --all --for=condition=Ready -l app {WAIT}"
        )
        return self._read()

    def _read(self) -> str:
        page = self.guest.run(f"{ENVIRONMENT}; kubectl exec client -- wget -q -O - -T 120 http://web.default.svc")
        if page != "kept":
            raise Failed(f"the Service answered {page!r}, not what the Job wrote to the volume")
        return "the Service answers what the Job wrote to the volume"

    def isolation(self) -> str:
        """Find no way out of the pod without a network."""
        probe = "nc -w 60 198.18.0.2 6443 </dev/null 2>&1; true"
        answer = self.guest.run(f'{ENVIRONMENT}; kubectl exec isolated -- sh -c "{probe}"')
        if "unreachable" not in answer:
            raise Failed(f"the pod without a network got: {answer}")
        return answer

    def session(self) -> str:
        """Find the node outside of any login session, in control groups with every controller that kubelet wants."""
        pid = self.guest.run("pgrep -xo kubelet; cat /proc/$(pgrep -xo kubelet)/cgroup").splitlines()
        if not pid[1].startswith("0::/concordat-"):
            raise Failed(f"kubelet is in {pid[1]}")
        controllers = self.guest.run("cat /sys/fs/cgroup/concordat-0/pods/cgroup.controllers")
        return f"kubelet is in {pid[1]}, pods have {controllers}"

    def down(self) -> str:
        """Stop the cluster; the machine looks as before."""
        self.guest.run(f"{CONCORDAT} cluster down")
        after = self.guest.run(TRACES)
        changed = set(after.splitlines()) ^ set(self.before.splitlines())
        left = {line for line in changed if not line.startswith("net.bridge.")}  # the module's: it stays loaded
        if left:
            raise Failed(f"left on the machine: {sorted(left)}")
        if "net.bridge.bridge-nf-call-iptables = 1" in after:
            raise Failed("the host's bridges pass its filters now")
        return "mounts, links, routes, control groups, settings and folders are as before"

    def again(self) -> str:
        """Start it again; the volume has what was written."""
        self.up()
        self.guest.run(f"{ENVIRONMENT}; kubectl wait pod --all --for=condition=Ready -l app {WAIT}")
        return self._read()

    def reboot(self) -> str:
        """Reboot the machine while the cluster runs."""
        before = self.guest.boot_id()
        self.guest.run("systemctl reboot || true")
        deadline = time.monotonic() + guests.BOOT_SECONDS
        while self.guest.boot_id() in (None, before):
            if time.monotonic() > deadline:
                raise Failed(f"no new boot within {guests.BOOT_SECONDS} s")
            time.sleep(2)
        return self.guest.run(f"{CONCORDAT} cluster status")

    def as_a_user(self) -> str:
        """Start it after the boot as a user, who is asked once and whose PATH has no folder with modprobe."""
        script = f"export XDG_CACHE_HOME={guests.CACHE}; cd; echo PATH=$PATH; {CONCORDAT} cluster up"
        done = subprocess.run(
            [*self.guest.ssh("-tt", user="dev"), script], input="y\n", capture_output=True, text=True, check=False
        )
        if done.returncode or "Use sudo?" not in done.stdout or "sbin" in done.stdout.split()[0]:
            raise Failed("\n    ".join((done.stdout + done.stderr).splitlines()[-15:]))
        self.guest.run(f"{ENVIRONMENT}; kubectl wait pod --all --for=condition=Ready -l app {WAIT}")
        return f"{done.stdout.split()[0]}; {self._read()}"

    def readme(self) -> str:
        """Run the README's two commands."""
        if not self.guest.accelerated:
            return "skipped: emulated"
        self.guest.run("rm -rf .venv; make demo && make test")
        return "make demo and make test passed"


def check(system: System) -> list[tuple[str, float, str]]:
    """Run all steps on a system, printing a line for each, up to the first that fails."""
    folder = cache() / "vm" / system.suite
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    results: list[tuple[str, float, str]] = []

    def step(name: str, work: Callable[[], str]) -> None:
        began = time.monotonic()
        try:
            found = work()
        except Failed as error:
            found = f"FAILED: {error}"
        results.append((name, time.monotonic() - began, found))
        print(f"{system.name}: {name} ({results[-1][1]:.0f} s): {found}", flush=True)
        if found.startswith("FAILED"):
            raise Failed(name)

    try:
        step("disk", lambda: guests.prepare(system, folder).name)
        with guests.running(folder) as guest:
            run = Check(guest)
            step("system", run.system)
            step("prerequisites", run.prerequisites)
            step("up", run.up)
            step("workloads", run.workloads)
            step("isolation", run.isolation)
            step("session", run.session)
            step("down", run.down)
            step("up again", run.again)
            step("reboot", run.reboot)
            step("up as a user", run.as_a_user)
            step("demo and tests", run.readme)
        shutil.rmtree(folder)  # a guest that failed is kept for a look
    except Failed:
        pass
    return results


def main() -> int:
    """Check the systems that are named, or every Debian; 1 when one failed."""
    if os.geteuid():
        print("make vm-check needs root: it makes root file systems and enters them", file=sys.stderr)
        return 2
    wanted = sys.argv[1:] or ["bookworm", "trixie"]
    rows = [(system, check(system)) for system in SYSTEMS if system.suite in wanted]
    print("\n| System | Step | Seconds | |\n|---|---|---|---|")
    for system, results in rows:
        for name, seconds, found in results:
            print(f"| {system.name} | {name} | {seconds:.0f} | {found.splitlines()[0]} |")
    return int(any(found.startswith("FAILED") for _, results in rows for _, _, found in results))


if __name__ == "__main__":
    sys.exit(main())
