"""Rendering the charts with the real helm."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from concordat_devcluster.tools import ensure_tools

ROOT = Path(__file__).resolve().parents[2]
VALUES = Path(__file__).parent / "values"

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


@pytest.fixture(scope="session")
def helm(tmp_path_factory: pytest.TempPathFactory) -> Helm:
    return Helm(ensure_tools() / "helm", tmp_path_factory.mktemp("helm"))


@pytest.fixture(scope="session")
def values() -> Callable[[str], Any]:
    """The values of a profile in values/."""
    return lambda profile: yaml.safe_load((VALUES / f"{profile}.yaml").read_text())


@pytest.fixture(scope="session")
def objects(helm: Helm, values: Callable[[str], Any]) -> Callable[[str], Objects]:
    """The objects of a profile, rendered once."""
    made: dict[str, Objects] = {}

    def of(profile: str) -> Objects:
        if profile not in made:
            chart, namespace = chart_of(profile)
            made[profile] = [o for o in yaml.safe_load_all(helm.render(chart, values(profile), namespace)) if o]
        return made[profile]

    return of


def chart_of(profile: str) -> tuple[str, str]:
    """Chart and namespace of a profile: its name begins with the chart's."""
    kind = profile.partition("-")[0]
    namespace = {"operator": "concordat", "crds": "concordat", "site": profile.removeprefix("site-")}[kind]
    return f"concordat-{kind}", namespace


@pytest.fixture(scope="session")
def locate() -> Callable[[str], tuple[str, str]]:
    """`chart_of`, for tests."""
    return chart_of
