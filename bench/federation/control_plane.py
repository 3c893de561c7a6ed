"""The API server of a measurement: its writes are in an audit log, it can be restarted, and it runs no Jobs."""

from __future__ import annotations

import contextlib
import json
import subprocess
from pathlib import Path
from typing import Any

import aiohttp

from concordat_devcluster.control_plane import CONTROLLERS, ControlPlane
from concordat_devcluster.processes import wait_for

_WRITES = ["create", "update", "patch", "delete", "deletecollection"]
_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [{"level": "Metadata", "verbs": _WRITES}, {"level": "None"}],
}
_RESTART_SECONDS = 120


class AuditedControlPlane(ControlPlane):
    """A control plane without the Job controller, whose part the bench plays: at 20 requests per second it would be
    what is measured."""

    def __init__(self) -> None:
        super().__init__()
        self._programs: dict[str, tuple[subprocess.Popen[bytes], tuple[str, ...]]] = {}

    @property
    def audit_log(self) -> Path:
        """Return the file with one JSON object per write."""
        return self.folder / "audit.log"

    def pids(self) -> dict[str, int]:
        """Return the process ids by program."""
        return {program: process.pid for program, (process, _) in self._programs.items()}

    def restart(self, program: str) -> None:
        """Kill a program of the control plane with SIGKILL, start it again, and wait until the API server is ready."""
        process, flags = self._programs[program]
        process.kill()
        process.wait()
        again = self._run(program, *flags)
        log = self.folder / f"{program}.log"
        wait_for("kube-apiserver", self._ready, _RESTART_SECONDS, lambda: again.poll() is None, log)

    async def etcd(self, method: str, **body: Any) -> dict[str, Any]:
        """Call etcd by its JSON gateway, for example `maintenance/status`."""
        connector = aiohttp.UnixConnector(path=f"{self.folder}/etcd.sock")
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.post(f"http://localhost/v3/{method}", json=body) as response,
        ):
            response.raise_for_status()
            answer: dict[str, Any] = await response.json(content_type=None)
            return answer

    async def compacted_bytes(self) -> int:
        """Return the size of etcd's database without history and free pages."""
        revision = (await self.etcd("maintenance/status"))["header"]["revision"]
        with contextlib.suppress(aiohttp.ClientResponseError):  # The API server has compacted to here itself.
            await self.etcd("kv/compaction", revision=revision, physical=True)
        await self.etcd("maintenance/defragment")
        return int((await self.etcd("maintenance/status"))["dbSize"])

    def _ready(self) -> bool:
        command = [str(self.tools / "kubectl"), f"--kubeconfig={self.kubeconfig}", "get", "--raw", "/readyz"]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    def _run(self, program: str, *flags: str) -> subprocess.Popen[bytes]:
        process = super()._run(program, *flags)
        self._programs[program] = (process, flags)
        return process

    def _api_flags(self, port: int) -> list[str]:
        policy = self.folder / "audit-policy.json"
        policy.write_text(json.dumps(_POLICY))
        return [*super()._api_flags(port), f"--audit-policy-file={policy}", f"--audit-log-path={self.audit_log}"]

    def _manager_flags(self, kubeconfig: Path) -> list[str]:
        played = f"--controllers={','.join(c for c in CONTROLLERS if c != 'job-controller')}"
        flags = [played if flag.startswith("--controllers=") else flag for flag in super()._manager_flags(kubeconfig)]
        # Its 20 requests per second would let the objects of ended rounds pile up.
        return [*flags, "--kube-api-qps=200", "--kube-api-burst=400"]
