"""Rendering the charts with the real helm."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
VALUES = ROOT / "tests" / "charts" / "values"

Objects = list[dict[str, Any]]


class Helm:
    """helm, on the charts of this checkout; it talks to no cluster."""

    def __init__(self, program: Path, folder: Path) -> None:
        self._program, self._folder = program, folder

    def run(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """Run helm, whatever comes of it."""
        return subprocess.run(
            [self._program, *arguments],
            capture_output=True,
            text=True,
            check=False,
            env={"HOME": str(self._folder), "KUBECONFIG": "/dev/null"},
        )

    def values(self, values: Any) -> Path:
        """A values file."""
        path = self._folder / "values.json"
        path.write_text(json.dumps(values))
        return path

    def template(self, chart: Path | str, values: Any, namespace: str) -> subprocess.CompletedProcess[str]:
        """Render a chart, given by name or folder."""
        name = chart if isinstance(chart, str) else chart.name
        folder = ROOT / "charts" / chart if isinstance(chart, str) else chart
        release = "concordat-site" if name == "concordat-site" else "concordat"
        return self.run("template", release, folder, "--namespace", namespace, "--values", self.values(values))

    def render(self, chart: Path | str, values: Any, namespace: str) -> str:
        """The manifests of a chart; it must render."""
        done = self.template(chart, values, namespace)
        assert done.returncode == 0, done.stderr
        return done.stdout
