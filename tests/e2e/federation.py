"""One embedded cluster with the demo federation installed, shared by the tests of whole rounds.

Training computes with the instruction set that ATEN_CPU_CAPABILITY and ONEDNN_MAX_CPU_ISA hold this machine to, and one
round with another one: what a test asserts has to hold on every processor.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from concordat.api import ConditionType, FederationRound, Release, Site, Update, find
from concordat.api.types import LABEL_ROUND_UID
from concordat.report.round_view import RoundView
from concordat_cli.demo import rounds
from concordat_cli.demo.install import CHARTS
from concordat_cli.demo.roster import HUB, SITES
from concordat_cli.demo.target import Target
from concordat_cli.kube import Kube
from concordat_cli.progress import Steps
from concordat_devcluster import images, records
from concordat_devcluster.buildah import Buildah
from concordat_devcluster.layout import REGISTRY_HOST, REGISTRY_PORT
from concordat_devcluster.paths import cache
from concordat_devcluster.tools import locked

CLUSTER = "e2e"


@dataclass
class Federation:
    """The installed demo federation, and short ways to look at it."""

    target: Target
    other_image: str
    """The learning image, held to another instruction set."""

    @property
    def kube(self) -> Kube:
        """The cluster."""
        return self.target.kube

    def apply(self, name: str, **spec: Any) -> None:
        """A round of the demo's manifest, with parts of its spec replaced or merged."""
        number = rounds.next_number(self.kube)
        manifest = rounds.manifest(number, 0)
        manifest["metadata"]["name"] = name
        for key, value in spec.items():
            old = manifest["spec"].get(key)
            manifest["spec"][key] = {**old, **value} if isinstance(old, dict) and isinstance(value, dict) else value
        self.kube.apply(manifest)

    def round(self, name: str) -> FederationRound:
        """The round, which must exist."""
        found = self.kube.get(FederationRound, HUB, name)
        assert found is not None, f"no round {name}"
        return found

    def updates(self, name: str) -> dict[str, Update]:
        """The round's Updates by site."""
        uid = self.round(name).metadata.uid
        return {u.spec.site: u for u in self.kube.list(Update, f"{LABEL_ROUND_UID}={uid}")}

    def champions(self) -> dict[str, str | None]:
        """What each site uses."""
        return {s.metadata.name: s.status.champion.release if s.status.champion else None for s in self.kube.list(Site)}

    def releases(self, name: str) -> dict[str, Release]:
        """A release and its copies, by namespace."""
        return {r.metadata.namespace: r for r in self.kube.list(Release) if r.metadata.name == name}

    def until(self, name: str, what: str, check: Callable[[], Any]) -> None:
        """Wait until `check` is true; fail at once when the round has ended and it is not."""

        def reached() -> bool:
            ended = find(self.round(name).status.conditions, ConditionType.SUCCEEDED)
            if check():
                return True
            assert ended is None or not (ended.is_true or ended.is_false), (
                f"round {name} ended before {what}: {ended.message}"
            )
            return False

        self.kube.wait(f"{what} of round {name}", reached)

    def settle(self, name: str) -> RoundView:
        """Wait for the round's end and the sites' decisions."""
        return rounds.follow(self.kube, name, Console())

    def allow(self, image: str) -> None:
        """Let one more image train at every site, as a site's engineer does."""
        allowed = json.dumps([self.target.images["learning"], image])
        for site in SITES:
            chart = ("concordat-site", str(CHARTS / "concordat-site"), "-n", site, "--reuse-values", "--wait")
            self.kube.run("helm", "upgrade", *chart, "--set-json", f"policy.consent.allowedImages={allowed}")

    def patch(self, name: str, **spec: Any) -> None:
        """Merge into a round's spec."""
        self.kube.run(
            "kubectl",
            "patch",
            "fround",
            name,
            "-n",
            HUB,
            "--type=merge",
            "-p",
            yaml.safe_dump({"spec": spec}),
        )


def held_to(variables: Mapping[str, str]) -> str:
    """Push a learning image whose pods compute under these variables; return how a pod refers to it."""
    run = records.read_run(records.state_folder(CLUSTER))
    assert run is not None
    buildah, name = Buildah(), "learning-held-to"
    lines = [f"FROM {images.build(Steps(Console()), ['learning'])['learning']}"]
    lines += [f"ENV {variable}={value}" for variable, value in sorted(variables.items())]
    where = f"docker://127.0.0.1:{REGISTRY_PORT}/{name}:{'-'.join(sorted(variables.values()))}"
    with locked(cache() / "images.lock"), tempfile.TemporaryDirectory() as folder:
        digest = Path(folder, "digest")
        Path(folder, "Dockerfile").write_text("\n".join(lines))
        buildah.build(f"localhost/{name}", Path(folder))
        # Compressed as the learning image was: layers that the registry has are not sent again.
        options = ["--tls-verify=false", "--quiet", "--compression-format", "zstd", "--compression-level", "3"]
        command = ["push", *options, "--digestfile", str(digest), f"localhost/{name}", where]
        buildah.run(f"pushing {name}", *command, through=["nsenter", "--target", str(run.pid), "--net", "--"])
        # An image that another one is made from could not be replaced.
        buildah.remove([f"localhost/{name}"])
        return f"{REGISTRY_HOST}/{name}@{digest.read_text().strip()}"
