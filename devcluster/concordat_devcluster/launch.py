"""From a state folder to a node that is ready, and back to nothing on the host."""

from __future__ import annotations

import json
import os
import shutil
import signal
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from concordat_devcluster import cgroups, credentials, network, node_config, records
from concordat_devcluster.errors import DevclusterError, log_tail
from concordat_devcluster.layout import DNS_READY_PORT, REGISTRY_PORT, Layout
from concordat_devcluster.manifests import manifests
from concordat_devcluster.node import ORDERLY_SECONDS, PODS_SECONDS
from concordat_devcluster.paths import MODULES
from concordat_devcluster.processes import answers, find_program, wait_for
from concordat_devcluster.records import Run

READY_SECONDS = 900.0
"""Long enough for a machine a tenth as fast: a node that died is noticed at once."""
STOP_SECONDS = ORDERLY_SECONDS + PODS_SECONDS + 60.0
_GONE_SECONDS = 60.0
_ANSWER_SECONDS = 20.0
_LINE = b"linked\n"


def start(layout: Layout, push_pause: Callable[[int], str], say: Callable[[str], None]) -> None:
    """Start a node that does not run and wait until pods can be created; DevclusterError when it fails.

    push_pause: given the node's process id, puts the sandbox image into its registry and returns its reference.
    say: is told what is waited for where that takes long.
    """
    began = datetime.now(UTC).replace(microsecond=0)
    _kernel_module("br_netfilter", Path("/proc/sys/net/bridge"))
    _write_files(layout, began)
    cgroups.create(layout.cgroup)
    run = _spawn(layout)

    def wait(what: str, log: str, ready: Callable[[], bool]) -> None:
        alive = partial(_check_alive, layout, run, what)
        wait_for(what, ready, READY_SECONDS, alive, layout.logs / f"{log}.log", say)

    wait("the image registry", "registry", lambda: _registry_listens(run.pid))
    pause = push_pause(run.pid)
    _write(layout.containerd_config, node_config.containerd(layout, pause))
    wait("the API server", "kube-apiserver", lambda: api_answers(layout))
    _apply(layout, manifests())
    wait("DNS", "coredns", lambda: answers(f"http://{layout.network.node_address}:{DNS_READY_PORT}/ready"))
    wait("the node", "kubelet", lambda: node_ready(_get(layout, f"/api/v1/nodes/{layout.node_name}"), began))
    account = "/api/v1/namespaces/default/serviceaccounts/default"
    wait("the controllers", "kube-controller-manager", lambda: _get(layout, account) != {})
    # What the API says of pods is of their last life until kubelet has looked at each; nobody should act on it.
    wait("news of the pods", "kubelet", lambda: outdated_pods(_get(layout, "/api/v1/pods"), began) == [])
    records.write_run(layout.state, replace(run, ready=True))


def end(layout: Layout, run: Run | None) -> None:
    """Stop the node if it runs, in order if it can, and remove what it has on the host."""
    if run is not None and is_alive(run):
        os.kill(run.pid, signal.SIGTERM)
        if not _within(STOP_SECONDS, lambda: not is_alive(run)):
            os.kill(run.pid, signal.SIGKILL)
            _within(_GONE_SECONDS, lambda: not is_alive(run))
    # The kernel takes the link away with the namespace, a moment after the last process.
    _within(_GONE_SECONDS, lambda: not network.is_connected(layout.network))
    network.disconnect(layout.network)
    cgroups.remove(layout.cgroup)
    records.forget_run(layout.state)


def is_alive(run: Run) -> bool:
    """Return whether the process of a record runs."""
    return run.is_alive(records.boot_id(), records.start_time(run.pid))


def api_answers(layout: Layout) -> bool:
    """Return whether the API server says that it is ready."""
    return answers(f"{layout.api_url}/readyz", ssl.create_default_context(cafile=str(layout.authority)))


def node_ready(node: dict[str, Any], since: datetime) -> bool:
    """Return whether a Node has said of itself, after `since`, that it is ready; older words are of its last life."""
    for condition in node.get("status", {}).get("conditions", []):
        if condition["type"] == "Ready":
            said = datetime.fromisoformat(condition["lastHeartbeatTime"])
            return bool(condition["status"] == "True" and said >= since)
    return False


def outdated_pods(pods: dict[str, Any], since: datetime) -> list[str] | None:
    """Names of the pods of a PodList that are said to run in containers from before `since`; None: no list."""
    if "items" not in pods:
        return None
    found = []
    for pod in pods["items"]:
        for container in pod.get("status", {}).get("containerStatuses", []):
            running = container["state"].get("running")
            if running and datetime.fromisoformat(running["startedAt"]) < since:
                found.append(pod["metadata"]["name"])
    return found


def _write_files(layout: Layout, now: datetime) -> None:
    # All anew at each start: certificates run out, and the programs and settings may be newer ones.
    shutil.rmtree(layout.config, ignore_errors=True)
    shutil.rmtree(layout.logs, ignore_errors=True)
    layout.create_folders()
    for name, text in node_config.render(layout).items():
        _write(layout.config / name, text)
    credentials.issue(layout, now)


def _spawn(layout: Layout) -> Run:
    command = [sys.executable, "-m", "concordat_devcluster.node"]
    command += [str(layout.state), str(layout.tools), str(layout.network.slot)]
    log = layout.logs / "node.log"
    with log.open("ab") as errors:
        starter = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, cwd=MODULES, start_new_session=True
        )
    # Leaving the block closes the pipe: a node that was not told of its link ends by itself.
    with starter:
        if starter.stdin is None or starter.stdout is None:
            raise AssertionError("both were asked for")
        pid = starter.stdout.readline().strip()
        if not pid:
            raise DevclusterError(f"the node could not leave the host's namespaces; {log}:{log_tail(log)}")
        run = Run.of(int(pid), layout.tools)
        cgroups.enter(layout.cgroup, run.pid)
        network.connect(layout.network, run.pid)
        records.write_run(layout.state, run)
        starter.stdin.write(_LINE)
    return run


def _check_alive(layout: Layout, run: Run, awaited: str) -> bool:
    if not is_alive(run):
        log = layout.logs / "node.log"
        raise DevclusterError(f"the node ended before {awaited} was ready; the end of {log}:{log_tail(log)}")
    return True


def _registry_listens(pid: int) -> bool:
    listening = f"0100007F:{REGISTRY_PORT:04X} 00000000:0000 0A"
    try:
        return listening in Path(f"/proc/{pid}/net/tcp").read_text()
    except OSError:
        return False


def _apply(layout: Layout, objects: list[dict[str, Any]]) -> None:
    command = [f"{layout.tools}/kubectl", f"--kubeconfig={layout.kubeconfig}", "apply", "--server-side"]
    command += ["--force-conflicts", "-f", "-"]
    done = subprocess.run(command, input=yaml.safe_dump_all(objects), capture_output=True, text=True, check=False)
    if done.returncode:
        raise DevclusterError(f"the new cluster {layout.name} refused its first objects: {done.stderr.strip()}")


def _get(layout: Layout, path: str) -> dict[str, Any]:
    context = ssl.create_default_context(cafile=str(layout.authority))
    context.load_cert_chain(layout.pki / "admin.crt", layout.pki / "admin.key")
    try:
        with urllib.request.urlopen(layout.api_url + path, timeout=_ANSWER_SECONDS, context=context) as answer:  # noqa: S310
            found: dict[str, Any] = json.load(answer)
            return found
    except OSError:
        return {}


def _kernel_module(name: str, evidence: Path) -> None:
    if evidence.exists():
        return
    program = find_program("modprobe")
    if program is None:
        raise DevclusterError(f"modprobe, which loads the kernel's module {name}, is not installed: install kmod")
    done = subprocess.run([program, name], capture_output=True, text=True, check=False)
    if done.returncode or not evidence.exists():
        raise DevclusterError(
            f"this kernel has no {name} ({done.stderr.strip() or f'{evidence} is missing'}): the node's network needs "
            "it. Load it on the host, or use a kernel that has it"
        )
    # Loaded, it has the bridges of the host (libvirt's, LXD's) pass the host's filters. The node wants that for its own
    # alone, and says so in its network namespace.
    for setting in evidence.glob("bridge-nf-call-*tables"):
        try:
            setting.write_text("0")
        except OSError as error:
            raise DevclusterError(
                f"{name} is loaded now, but {setting} cannot be set to 0 ({error.strerror}): the host's bridges pass "
                "its filters. Write 0 there where you may, and start again"
            ) from None


def _within(seconds: float, true: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def _write(path: Path, text: str) -> None:
    # Renamed into place: the node starts programs when their file appears.
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_text(text)
    temporary.replace(path)
