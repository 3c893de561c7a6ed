"""Process 1 of a node: `python -m concordat_devcluster.node STATE TOOLS SLOT`.

Leaves the caller's namespaces, prints the process id that the new process 1 has on the host, and ends; process 1
waits for a line on standard input, which says that its link to the host is there, and then runs the node.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path

from concordat_devcluster import mounts
from concordat_devcluster.components import components
from concordat_devcluster.layout import RUNTIME, Layout
from concordat_devcluster.network import Network, configure_node
from concordat_devcluster.reboot import end_unstarted
from concordat_devcluster.supervisor import Supervisor

ORDERLY_SECONDS = 60.0
"""For etcd, containerd and kubelet, which take less than a second; the limit is for a machine that is slow or busy."""
PODS_SECONDS = 3.0
"""A grace that every stop takes in full where a pod does not heed SIGTERM."""
_NEW_NAMESPACES = 0x00020000 | 0x04000000 | 0x08000000 | 0x20000000 | 0x40000000
"""CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC, CLONE_NEWPID, CLONE_NEWNET."""

_NETWORK_SETTINGS = {
    "ipv4/ip_forward": "1",
    # A pod that reaches a Service whose pod is on the same bridge: the answer has to pass kube-proxy's rules.
    "bridge/bridge-nf-call-iptables": "1",
    # Pods without a network must not find the node's own addresses across their bridge: it has no address
    # there, so it answers no ARP, and link-local IPv6 addresses do not exist.
    "ipv4/conf/all/arp_ignore": "1",
    "ipv6/conf/all/disable_ipv6": "1",
    "ipv6/conf/default/disable_ipv6": "1",
}


def main(state: str, tools: str, slot: str) -> None:
    """Become a node."""
    layout = Layout(Path(state), Path(tools), Network(int(slot)))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_NEW_NAMESPACES):
        error = ctypes.get_errno()
        raise OSError(error, f"unshare: {os.strerror(error)}")
    pid = os.fork()
    if pid:
        print(pid, flush=True)
        return
    os.setsid()
    if not sys.stdin.readline():
        return  # Whoever started this node ended before the link was made.
    with (layout.logs / "node.log").open("ab") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    run(layout)


def run(layout: Layout) -> None:
    """Set up the node inside its namespaces and supervise its programs until SIGTERM."""
    socket.sethostname(layout.node_name)
    mounts.detach()
    mounts.prepare(layout.state)
    for name, value in _NETWORK_SETTINGS.items():
        setting = Path("/proc/sys/net", name)
        if setting.exists():
            setting.write_text(value)
    configure_node(layout.network)
    if lost := end_unstarted(layout.state / "containerd"):
        print(f"containers that had not started when the node went down: {lost}", flush=True)
    environment = {
        "PATH": f"{layout.tools}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": str(RUNTIME),
        "OTEL_TRACES_EXPORTER": "none",
    }
    Supervisor(components(layout), layout.logs, environment).run(ORDERLY_SECONDS)
    _end_pods()


def _end_pods() -> None:
    # The stores are closed and kubelet is gone, so nobody records these ends as failures: to the cluster it
    # looks like a reboot. Whatever is left dies with this process.
    with suppress(ProcessLookupError):  # There are no pods.
        os.kill(-1, signal.SIGTERM)
    deadline = time.monotonic() + PODS_SECONDS
    while time.monotonic() < deadline:
        try:
            if os.waitpid(-1, os.WNOHANG) == (0, 0):
                time.sleep(0.05)
        except ChildProcessError:
            return


if __name__ == "__main__":
    main(*sys.argv[1:])
