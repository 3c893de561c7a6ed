"""The embedded cluster itself: what it promises to pods, to its user, and to the machine it runs on."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from concordat_devcluster import cluster, images, records
from concordat_devcluster.cluster import EmbeddedCluster
from concordat_devcluster.layout import RUNTIME_CLASS, Layout
from concordat_devcluster.network import Network
from concordat_devcluster.progress import Silent
from concordat_devcluster.records import State

NAME, OTHER = "e2e-node", "e2e-other"
TIMEOUT = "--timeout=1800s"
"""What is waited for takes seconds on two cores of our own; the limit is for a machine that is slow or busy."""
SPACE = "probe"


@dataclass
class Node:
    """A cluster, an image that is in its registry, and kubectl."""

    cluster: EmbeddedCluster
    image: str

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        command = [str(self.cluster.tools / "kubectl"), f"--kubeconfig={self.cluster.kubeconfig}", *arguments]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{arguments}: {done.stderr}"
        return done.stdout

    def apply(self, *objects: dict[str, Any]) -> None:
        self.kubectl("apply", "-f", "-", stdin="\n".join(f"---\n{json.dumps(each)}" for each in objects))

    def exec(self, pod: str, script: str) -> str:
        return self.kubectl("exec", "-n", SPACE, pod, "--", "sh", "-c", script)

    def ready(self, *pods: str) -> None:
        self.kubectl("wait", "-n", SPACE, "--for=condition=Ready", TIMEOUT, *(f"pod/{pod}" for pod in pods))

    def pod(self, name: str, *command: str, volume: str | None = None, **spec: Any) -> dict[str, Any]:
        """A pod that the `restricted` level admits."""
        container: dict[str, Any] = {
            "name": "main",
            "image": self.image,
            "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        }
        if command:
            container["command"] = list(command)
        if volume:
            container["volumeMounts"] = [{"name": "data", "mountPath": "/data"}]
            spec["volumes"] = [{"name": "data", "persistentVolumeClaim": {"claimName": volume}}]
        context = {
            "runAsNonRoot": True,
            "runAsUser": 65532,
            "fsGroup": 65532,
            "seccompProfile": {"type": "RuntimeDefault"},
        }
        metadata = {"name": name, "namespace": SPACE, "labels": {"app": name}}
        whole = {"securityContext": context, "terminationGracePeriodSeconds": 1, "containers": [container], **spec}
        return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": whole}


def _up() -> Node:
    started = cluster.up(NAME)
    pushed = images.push(Silent(), started.registry_host, node_pid=started.pid, names=("pause",))
    return Node(started, pushed["pause"])


def _layout(name: str) -> Layout:
    state = records.state_folder(name)
    slot = records.read_slot(state)
    assert slot is not None
    return Layout(state, Path("/"), Network(slot))


def _left_on_the_host(layout: Layout) -> list[str]:
    """Everything of a cluster that a look at the machine finds."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().decode(errors="replace").replace("\0", " ")
        except OSError:
            continue
        if str(layout.state) in command or f"k8s.io -id {layout.name}" in command:
            found.append(f"process {process.name}: {command}")
    found += [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(layout.state) in line]
    for look in (["ip", "-o", "link"], ["ip", "route", "show", "table", "all"]):
        listed = subprocess.run(look, capture_output=True, text=True, check=True).stdout.splitlines()
        found += [line for line in listed if layout.network.host_link in line]
    found += [str(group) for group in Path("/sys/fs/cgroup").glob(f"**/{layout.cgroup}")]
    return found


def _pid_namespace(process: Path) -> str:
    try:
        return os.readlink(process / "ns/pid")
    except OSError:
        return ""


def _is_mounted(line: str) -> bool:
    """Whether the hierarchy of a line of /proc/PID/cgroup has a folder below /sys/fs/cgroup."""
    number, names, _ = line.split(":", 2)
    if number != "0":
        return Path("/sys/fs/cgroup", names.removeprefix("name=")).is_dir()
    return any(Path("/sys/fs/cgroup", place, "cgroup.procs").is_file() for place in ("", "unified"))


@pytest.fixture(scope="module")
def folders_before() -> dict[str, list[str]]:
    return _folders()


_OF_BUILDAH = {"containers", "mount"}
"""Made where images are built, which another worker does meanwhile on a machine that has none."""


def _folders() -> dict[str, list[str]]:
    return {
        folder: sorted({*os.listdir(folder)} - _OF_BUILDAH)
        for folder in ("/etc", "/opt", "/run", "/usr/libexec", "/var/lib", "/var/log")
    }


@pytest.fixture(scope="module")
def node(folders_before: dict[str, list[str]]) -> Iterator[Node]:
    cluster.reset(NAME)
    found = _up()
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}}
    found.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SPACE, "labels": labels}})
    found.kubectl("wait", "-n", SPACE, "--for=create", TIMEOUT, "serviceaccount/default")
    found.apply(
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": "data", "namespace": SPACE},
            "spec": claim,
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "web", "namespace": SPACE},
            "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]},
        },
        found.pod("web", "httpd", "-f", "-v", "-p", "8080", "-h", "/data", volume="data"),
        found.pod("client"),
        found.pod("isolated", runtimeClassName=RUNTIME_CLASS),
    )
    found.ready("web", "client", "isolated")
    yield found
    cluster.reset(NAME)
    cluster.reset(OTHER)


def test_it_is_ready_when_up_returns(node: Node) -> None:
    (only,) = json.loads(node.kubectl("get", "nodes", "-o", "json"))["items"]
    assert {c["type"]: c["status"] for c in only["status"]["conditions"]}["Ready"] == "True"
    (storage,) = json.loads(node.kubectl("get", "storageclass", "-o", "json"))["items"]
    assert storage["metadata"]["annotations"]["storageclass.kubernetes.io/is-default-class"] == "true"
    assert cluster.up(NAME) == node.cluster
    status = cluster.status(NAME)
    assert (status.state, status.answers) == (State.RUNNING, True)


def test_no_program_of_the_node_stays_in_the_session_that_started_it(node: Node) -> None:
    """Whoever logs out, or whose desktop's service stops, would otherwise end the node."""
    group = f"/{_layout(NAME).cgroup}/"
    namespace = os.readlink(f"/proc/{node.cluster.pid}/ns/pid")
    programs = [p for p in Path("/proc").glob("[0-9]*") if _pid_namespace(p) == namespace]
    assert len(programs) > 10
    for program in programs:
        for line in (program / "cgroup").read_text().splitlines():
            path = line.split(":", 2)[2]
            # A hierarchy that is mounted nowhere has no groups of ours.
            assert path.startswith(group) or not _is_mounted(line), f"{(program / 'comm').read_text()}: {line}"


def test_a_restricted_pod_is_reached_by_the_name_of_its_service(node: Node) -> None:
    node.exec("web", "echo kept > /data/index.html")
    assert node.exec("client", f"wget -q -O - http://web.{SPACE}.svc") == "kept\n"
    assert "response:200" in node.kubectl("logs", "-n", SPACE, "web")


def test_pod_security_refuses_what_is_not_restricted(node: Node) -> None:
    loose = node.pod("loose", securityContext={})
    with pytest.raises(AssertionError, match="violates PodSecurity"):
        node.apply(loose)


def test_an_isolated_pod_has_no_way_out(node: Node) -> None:
    service = json.loads(node.kubectl("get", "service", "kubernetes", "-o", "json"))["spec"]["clusterIP"]
    for address, port in ((service, 443), (node.cluster.address, 6443), ("198.18.0.1", 22)):
        answer = node.exec("isolated", f"nc -w 60 {address} {port} </dev/null 2>&1; true")
        assert "unreachable" in answer, answer
    routes = node.exec("isolated", "cat /proc/net/route").splitlines()[1:]
    assert not [line for line in routes if line.split()[1] == "00000000"]


def test_no_pod_can_push_an_image(node: Node) -> None:
    with pytest.raises(OSError, match="refused"):
        socket.create_connection((node.cluster.address, 5005), timeout=60)
    answer = node.exec("client", f"nc -w 60 {node.cluster.address} 5005 </dev/null 2>&1; true")
    assert "refused" in answer, answer


def test_two_clusters_run_at_once(node: Node) -> None:
    other = cluster.up(OTHER)
    assert other.address != node.cluster.address
    assert {s.name for s in cluster.list_all() if s.answers} >= {NAME, OTHER}
    layout = _layout(OTHER)
    cluster.down(OTHER)
    assert "Traceback" not in (layout.logs / "node.log").read_text()
    assert _left_on_the_host(layout) == []
    node.kubectl("get", "--raw", "/readyz")


def test_everything_is_there_again_after_down_and_up(node: Node, folders_before: dict[str, list[str]]) -> None:
    layout = _layout(NAME)
    assert _left_on_the_host(layout) != []
    assert cluster.down(NAME)
    assert _left_on_the_host(layout) == []
    assert _folders() == folders_before
    assert cluster.status(NAME).state is State.STOPPED
    node.cluster = _up().cluster
    node.ready("web", "client", "isolated")
    assert node.exec("client", f"wget -q -O - http://web.{SPACE}.svc") == "kept\n"


def test_a_start_that_was_cut_off_is_done_again(node: Node) -> None:
    state = records.state_folder(NAME)
    run = records.read_run(state)
    assert run is not None
    records.write_run(state, replace(run, ready=False))
    node.cluster = cluster.up(NAME)
    assert node.cluster.pid != run.pid
    assert records.start_time(run.pid) is None


def test_a_killed_cluster_is_cleaned_up_after_and_goes_on(node: Node) -> None:
    os.kill(node.cluster.pid, signal.SIGKILL)
    while records.start_time(node.cluster.pid) is not None:
        pass
    assert cluster.status(NAME).state is State.CRASHED
    node.cluster = _up().cluster
    node.ready("web", "client")
    assert node.exec("client", f"wget -q -O - http://web.{SPACE}.svc") == "kept\n"


def test_deleting_a_claim_removes_its_data(node: Node) -> None:
    volumes = records.state_folder(NAME) / "volumes"
    assert len(list(volumes.iterdir())) == 1
    node.kubectl("delete", "-n", SPACE, "pod/web", "pvc/data", TIMEOUT)
    node.kubectl("wait", "--for=delete", "persistentvolumes", "--all", TIMEOUT)
    assert list(volumes.iterdir()) == []
