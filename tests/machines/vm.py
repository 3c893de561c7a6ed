"""The embedded cluster on virtual machines with systemd and control groups of version 2: `make vm-check`.

Needs root, qemu-system-x86_64, mke2fs and 20 GB of disk at the cache folder. Where hardware virtualization works, it
also runs the README's two commands in the guest; emulated, that would take days.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from concordat_cli.progress import Steps
from concordat_devcluster import prerequisites
from concordat_devcluster.errors import DevclusterError
from concordat_devcluster.paths import cache
from tests.machines import guest as guests
from tests.machines.chroots import CHECKOUT, SYSTEMS, Failed, System
from tests.machines.guest import Guest

SUITES = ("bookworm", "trixie")
WAIT = "--timeout=3000s"
CONCORDAT = f"{CHECKOUT}/.venv/bin/concordat"
READ = "until kubectl exec client -- wget -q -O - http://web.default.svc; do sleep 2; done"
"""Started again, a cluster still has its pods' conditions and addresses of before, until the node reports new ones."""
OBJECTS = (Path(__file__).parent / "objects.yaml").read_text()
IMAGE = """from concordat_devcluster import cluster, images
from concordat_devcluster.progress import Silent
node = cluster.up("demo")
print(images.push(Silent(), node.registry_host, node_pid=node.pid, names=("pause",))["pause"])"""
OWN = rf"""
for p in /proc/[0-9]*; do
    case "$(readlink $p/exe) $(tr '\0' ' ' <$p/cmdline)" in
        {guests.CACHE}/*|*-m\ concordat_devcluster*) echo "$(cat $p/comm) is in $(cat $p/cgroup)";;
    esac
done"""
"""Prints the processes of the node, but for its pods' own, with their control groups."""
TRACES = f"""
cut -d ' ' -f 5 /proc/self/mountinfo | sort
ip -o link | cut -d ' ' -f 2
ip route show table all | sed "s/ expires [0-9]*sec//"
nft list ruleset
ls -d /sys/fs/cgroup/*/
sysctl kernel.keys kernel.panic kernel.panic_on_oops vm.overcommit_memory vm.panic_on_oom
sysctl net.ipv4.ip_forward net.ipv4.conf.all net.ipv4.conf.default
sysctl net.ipv6.conf.all || true  # an address's secret that is not set cannot be read
sysctl net.bridge || true
ls /etc /etc/cni /opt /run /var/lib /var/log || true
{OWN}
"""
UIDS = "get pvc,pv,job,pod,service -o custom-columns=:.kind,:.metadata.name,:.metadata.uid --no-headers"


@dataclass(frozen=True)
class Result:
    """How a step ended."""

    step: str
    seconds: float
    text: str
    passed: bool


class Check:
    """The steps of one system, in their order."""

    def __init__(self, guest: Guest) -> None:
        self.guest = guest
        self.before = ""
        self.exports = ""
        self.uids: set[str] = set()

    def system(self) -> str:
        """Say what booted, and remember what it looks like."""
        found = self.guest.run("stat -fc %T /sys/fs/cgroup; uname -r; systemctl --version | head -1; python3 --version")
        if "cgroup2fs" not in found:
            raise Failed(f"no control groups of version 2: {found}")
        self.guest.run("modprobe br_netfilter; sysctl -q -w net.bridge.bridge-nf-call-iptables=0; rmmod br_netfilter")
        self.before = self.guest.run(TRACES)
        return ", ".join(found.splitlines())

    def prerequisites(self) -> str:
        """Find nothing missing, and the programs of the node built."""
        return self.guest.run(f"{CONCORDAT} cluster prerequisites").strip() or "nothing is missing"

    def up(self) -> str:
        """Start the cluster; its node is Ready."""
        self.exports = self.guest.run(f"{CONCORDAT} cluster up")
        return self._kubectl(f"wait node --all --for=condition=Ready {WAIT}")

    def _kubectl(self, arguments: str) -> str:
        return self.guest.run(f"{self.exports}\nkubectl {arguments}")

    def workloads(self) -> str:
        """Run a pod behind a Service, a Job that writes to a volume, and a pod without a network."""
        image = self.guest.run(f"{guests.PYTHON} -c '{IMAGE}'").splitlines()[-1]
        objects = OBJECTS.replace("IMAGE", image)
        self._kubectl(f"apply -f - <<'END'\n{objects}\nEND")
        self._kubectl(f"wait job/writer --for=condition=Complete {WAIT}")
        found = self._read()
        self.uids = self._objects()
        return found

    def _objects(self) -> set[str]:
        return set(self._kubectl(UIDS).splitlines())

    def _kept(self) -> str:
        found = self._read()
        changed = self._objects() ^ self.uids
        if changed:
            raise Failed(f"other objects than before: {sorted(changed)}")
        return f"{found}; all {len(self.uids)} objects are the same"

    def _read(self) -> str:
        self._kubectl(f"wait pod --for=condition=Ready -l app {WAIT}")
        page = self.guest.run(f"{self.exports}\ntimeout 3000 sh -c '{READ}'")
        if page != "kept":
            raise Failed(f"the Service answered {page!r}, not what the Job wrote to the volume")
        return "the Service answers what the Job wrote to the volume"

    def isolation(self) -> str:
        """Find no way out of the pod without a network."""
        probe = "nc -w 60 198.18.0.2 6443 </dev/null 2>&1; true"
        answer = self._kubectl(f'exec isolated -- sh -c "{probe}"')
        if "unreachable" not in answer:
            raise Failed(f"the pod without a network got: {answer}")
        return answer

    def session(self) -> str:
        """Find every process of the node outside of the login session that started it."""
        processes = self.guest.run(OWN).splitlines()
        inside = [line for line in processes if " is in 0::/concordat-" not in line]
        if inside or not any(line.startswith("kubelet ") for line in processes):
            raise Failed(f"not in the node's control group: {inside or 'there is no kubelet'}")
        controllers = self.guest.run("cat /sys/fs/cgroup/concordat-0/pods/cgroup.controllers")
        return f"all {len(processes)} processes of the node are in its control group, pods have {controllers}"

    def down(self) -> str:
        """Stop the cluster; the machine looks as before."""
        self.guest.run(f"{CONCORDAT} cluster down")
        after = self.guest.run(TRACES)
        changed = set(after.splitlines()) ^ set(self.before.splitlines())
        left = {line for line in changed if not line.startswith("net.bridge.")}  # the module's, which stays loaded
        if left:
            raise Failed(f"left on the machine: {sorted(left)}")
        if "net.bridge.bridge-nf-call-iptables = 1" in after:
            raise Failed("the host's bridges pass its filters now")
        return "mounts, links, routes, control groups, settings and folders are as before"

    def again(self) -> str:
        """Start it again; the volume has what was written."""
        self.up()
        return self._kept()

    def reboot(self) -> str:
        """Reboot the machine while the cluster runs."""
        before = self.guest.boot_id()
        self.guest.run("systemctl reboot || true")
        self.guest.wait_for_boot(guests.BOOT_SECONDS, before)
        return self.guest.run(f"{CONCORDAT} cluster status")

    def as_a_user(self) -> str:
        """Start it after the boot as a user, who is asked once and whose PATH has no folder with modprobe."""
        script = f"cd; echo PATH=$PATH; {CONCORDAT} cluster up; {CONCORDAT} cluster status"
        said = self.guest.run(script, "-tt", user="dev", typed="y\n")
        (path,) = [line for line in said.splitlines() if line.startswith("PATH=")]
        if "sbin" in path or said.count("Use sudo?") != 1:
            raise Failed(f"the user was not asked once, or has administrators' folders in {path}:\n    {said}")
        if not any(line.startswith("demo ") and " ready" in line for line in said.splitlines()):
            raise Failed(f"the user does not see the cluster ready:\n    {said}")
        return f"{path}; {self._kept()}"

    def steps(self) -> tuple[tuple[str, Callable[[], str]], ...]:
        """Return every step with its name, in the order in which they must be done."""
        return (
            ("system", self.system),
            ("prerequisites", self.prerequisites),
            ("up", self.up),
            ("workloads", self.workloads),
            ("isolation", self.isolation),
            ("session", self.session),
            ("down", self.down),
            ("up again", self.again),
            ("reboot", self.reboot),
            ("up as a user", self.as_a_user),
            ("demo and tests", self.readme),
        )

    def readme(self) -> str:
        """Run the README's two commands."""
        if not self.guest.accelerated:
            return "skipped: emulated"
        self.guest.run("rm -rf .venv; make demo; make test")
        return "make demo and make test passed"


def check(system: System) -> list[Result]:
    """Run all steps on a system, printing a line for each, up to the first that fails."""
    folder = cache() / "vm" / system.suite
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    results: list[Result] = []

    def step(name: str, work: Callable[[], str]) -> None:
        began = time.monotonic()
        try:
            text, passed = work(), True
        except (Failed, DevclusterError) as error:
            text, passed = str(error), False
        results.append(Result(name, time.monotonic() - began, text, passed))
        print(f"{system.name}: {name}{'' if passed else ' FAILED'} ({results[-1].seconds:.0f} s): {text}", flush=True)
        if not passed:
            raise Failed(name)

    with ExitStack() as running:
        run: list[Check] = []

        def boot() -> str:
            run.append(Check(running.enter_context(guests.running(folder))))
            return run[0].guest.how

        try:
            step("disk", lambda: guests.prepare(system, folder))
            step("boot", boot)
            for name, work in run[0].steps():
                step(name, work)
        except Failed:
            print(f"{system.name}: {folder} is kept; the end of its console:\n{guests.console(folder)}", flush=True)
            return results
    shutil.rmtree(folder)
    return results


def main() -> int:
    """Check the systems that are named, or every Debian; 1 when one failed, 2 when none can be checked."""
    systems = {system.suite: system for system in SYSTEMS if system.suite in SUITES}
    wanted = sys.argv[1:] or SUITES
    if os.geteuid():
        print("make vm-check needs root: it makes root file systems and enters them", file=sys.stderr)
        return 2
    if unknown := [suite for suite in wanted if suite not in systems]:
        print(f"SUITES={' '.join(unknown)}: choose from {' '.join(SUITES)}", file=sys.stderr)
        return 2
    lacking = [need for need in guests.needs() if not need.present()]
    if lacking and not prerequisites.has_apt():
        print(prerequisites.message(lacking), file=sys.stderr)
        return 2
    prerequisites.install(lacking, Steps(Console()))
    rows = [(systems[suite], check(systems[suite])) for suite in wanted]
    print("\n| System | Step | Seconds | |\n|---|---|---|---|")
    for system, results in rows:
        for result in results:
            text = f"{'' if result.passed else 'FAILED: '}{result.text.splitlines()[0] if result.text else ''}"
            print(f"| {system.name} | {result.step} | {result.seconds:.0f} | {text} |")
    return int(not all(result.passed for _, results in rows for result in results))


if __name__ == "__main__":
    sys.exit(main())
