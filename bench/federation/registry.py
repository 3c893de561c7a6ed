"""The registry of a measurement: a real one, whose log says who asked for what."""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from pathlib import Path

from bench.machine import stored_bytes
from concordat_devcluster.processes import answers, free_port, start, stop, wait_for
from concordat_devcluster.tools import ensure_tools

_START_SECONDS = 120


class Registry:
    """`registry serve` on a free port of loopback.

    The sites reach it as 127.0.0.1 and the hub as localhost, so that the log tells their requests apart.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        port = free_port()
        self.url, self.hub_url = f"http://127.0.0.1:{port}", f"http://localhost:{port}"
        configuration = {
            "version": "0.1",
            "log": {"level": "info", "formatter": "json", "accesslog": {"disabled": True}},
            "storage": {"filesystem": {"rootdirectory": str(folder / "data")}, "delete": {"enabled": True}},
            "http": {"addr": f"127.0.0.1:{port}", "secret": "bench"},
        }
        (folder / "config.yml").write_text(json.dumps(configuration))
        self.log = folder / "registry.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it answers."""
        process = self._process = start([ensure_tools() / "registry", "serve", self._folder / "config.yml"], self.log)
        wait_for(
            "registry", lambda: answers(f"{self.url}/v2/"), _START_SECONDS, lambda: process.poll() is None, self.log
        )

    @property
    def pid(self) -> int:
        """Return its process id; 0 while it is stopped."""
        return self._process.pid if self._process is not None else 0

    def stop(self) -> None:
        """Stop it; what it stored stays."""
        if self._process is not None:
            stop(self._process, 3)
            self._process = None

    def bytes(self) -> int:
        """Return the bytes of all stored files."""
        return stored_bytes(self._folder / "data")

    def requests(self, offset: int = 0) -> tuple[Counter[str], int]:
        """Return the requests logged since `offset`, as "hub GET" or "sites PUT", and the offset to go on from."""
        found: Counter[str] = Counter()
        with self.log.open("rb") as lines:
            lines.seek(offset)
            for line in lines:
                if b'"response completed"' in line:
                    entry = json.loads(line)
                    who = "hub" if entry["http.request.host"].startswith("localhost") else "sites"
                    found[f"{who} {entry['http.request.method']}"] += 1
            return found, lines.tell()
