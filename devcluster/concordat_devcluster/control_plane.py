"""etcd, kube-apiserver and kube-controller-manager on loopback: a real API server for tests, without root."""

from __future__ import annotations

import json
import shutil
import ssl
import subprocess
import tempfile
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from concordat_devcluster import pki
from concordat_devcluster.errors import DevclusterError
from concordat_devcluster.paths import CRDS
from concordat_devcluster.processes import answers, free_port, start, stop, wait_for
from concordat_devcluster.tools import control_plane_tools

CONTROLLERS = (
    "clusterrole-aggregation-controller",
    "garbage-collector-controller",
    "job-controller",
    "namespace-controller",
    "serviceaccount-controller",
    "ttl-after-finished-controller",
)
START_SECONDS = 600
"""It takes six on two cores of our own; the limit is for a machine that is slow or busy."""
CRD_SECONDS = 200
STOP_SECONDS = 3


class ControlPlane:
    """A Kubernetes API with RBAC and the controllers that need no node: pods stay pending.

    A context manager. Nothing survives it: its folder is temporary, its processes die with their thread.
    `kubeconfig` is the path of an administrator's kubeconfig.
    """

    def __init__(self, tools: Path | None = None) -> None:
        self._tools = tools
        self._cleanup = ExitStack()

    def __enter__(self) -> Self:
        self.tools = self._tools or control_plane_tools()
        self.folder = Path(tempfile.mkdtemp(prefix="cdc-"))
        self._cleanup.callback(shutil.rmtree, self.folder)
        try:
            self._start()
        except BaseException:
            self._cleanup.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._cleanup.close()

    def kubeconfig_for(self, user: str, *groups: str) -> Path:
        """Path of a kubeconfig for a user in some groups, with no rights but what RBAC gives them."""
        client = self._authority.client(pki.Identity(user, groups), datetime.now(UTC))
        path = self.folder / f"{user.replace(':', '-')}.kubeconfig"
        pki.write_private(path, pki.kubeconfig(self.server, self._authority.pair.certificate, client).encode())
        return path

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """Run kubectl as administrator and return its output; DevclusterError with its words when it fails."""
        command = [str(self.tools / "kubectl"), f"--kubeconfig={self.kubeconfig}", *arguments]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
        if done.returncode:
            raise DevclusterError(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    def apply_crds(self, folder: Path = CRDS) -> None:
        """Apply every CustomResourceDefinition of a folder and wait until the API serves them."""
        self.kubectl("apply", "--server-side", "-f", str(folder))
        log = self.folder / "kube-apiserver.log"
        wait_for("the custom resources", lambda: self._established(folder), CRD_SECONDS, lambda: True, log)

    def _established(self, folder: Path) -> bool:
        # Not `kubectl wait`: it fails on a definition so new that it has no conditions yet.
        found = json.loads(self.kubectl("get", "-f", str(folder), "-o", "json"))["items"]
        conditions = [(crd.get("status") or {}).get("conditions") or [] for crd in found]
        return all(any(c["type"] == "Established" and c["status"] == "True" for c in each) for each in conditions)

    def _start(self) -> None:
        now = datetime.now(UTC)
        certificates = self.folder / "pki"
        self._authority = pki.Authority.load_or_create(certificates, "concordat-control-plane", now)
        self._authority.server(["127.0.0.1", "localhost"], now).write(certificates, "apiserver")
        pki.write_service_account_key(certificates / "sa.key")
        port = free_port()
        self.server = f"https://127.0.0.1:{port}"
        self.kubeconfig = self._kubeconfig("admin", pki.ADMIN, now)
        self._run("etcd", *self._etcd_flags())
        api = self._run("kube-apiserver", *self._api_flags(port))
        admin = self._authority.client(pki.ADMIN, now)
        admin.write(certificates, "admin")
        context = ssl.create_default_context(cafile=str(certificates / "ca.crt"))
        context.load_cert_chain(certificates / "admin.crt", certificates / "admin.key")
        wait_for(
            "kube-apiserver",
            lambda: answers(f"{self.server}/readyz", context),
            START_SECONDS,
            lambda: api.poll() is None,
            self.folder / "kube-apiserver.log",
        )
        manager = self._kubeconfig("controller-manager", pki.CONTROLLER_MANAGER, now)
        self._run("kube-controller-manager", *self._manager_flags(manager))

    def _run(self, program: str, *flags: str) -> subprocess.Popen[bytes]:
        process = start([self.tools / program, *flags], self.folder / f"{program}.log")
        self._cleanup.callback(stop, process, STOP_SECONDS)
        return process

    def _kubeconfig(self, name: str, identity: pki.Identity, now: datetime) -> Path:
        path = self.folder / f"{name}.kubeconfig"
        client = self._authority.client(identity, now)
        pki.write_private(path, pki.kubeconfig(self.server, self._authority.pair.certificate, client).encode())
        return path

    def _etcd_flags(self) -> list[str]:
        # Sockets in a private folder: the store has no authentication of its own. A single member never
        # dials the advertised URLs, but they have to look like URLs.
        return [
            f"--data-dir={self.folder}/etcd",
            f"--listen-client-urls=unix://{self.folder}/etcd.sock",
            f"--listen-peer-urls=unix://{self.folder}/peer.sock",
            "--advertise-client-urls=http://localhost:2379",
            "--initial-advertise-peer-urls=http://localhost:2380",
            "--initial-cluster=default=http://localhost:2380",
            "--unsafe-no-fsync",
            "--log-level=warn",
        ]

    def _api_flags(self, port: int) -> list[str]:
        certificates = self.folder / "pki"
        return [
            f"--etcd-servers=unix://{self.folder}/etcd.sock",
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            "--endpoint-reconciler-type=none",
            f"--secure-port={port}",
            f"--tls-cert-file={certificates}/apiserver.crt",
            f"--tls-private-key-file={certificates}/apiserver.key",
            f"--client-ca-file={certificates}/ca.crt",
            "--authorization-mode=RBAC",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={certificates}/sa.key",
            f"--service-account-signing-key-file={certificates}/sa.key",
            "--service-cluster-ip-range=10.0.0.0/24",
        ]

    def _manager_flags(self, kubeconfig: Path) -> list[str]:
        certificates = self.folder / "pki"
        return [
            f"--kubeconfig={kubeconfig}",
            f"--service-account-private-key-file={certificates}/sa.key",
            f"--root-ca-file={certificates}/ca.crt",
            f"--controllers={','.join(CONTROLLERS)}",
            "--use-service-account-credentials",
            "--leader-elect=false",
            "--secure-port=0",
        ]
