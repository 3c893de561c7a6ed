"""One embedded cluster with the demo federation installed, shared by the tests of whole rounds."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import yaml
from rich.console import Console

from concordat.api import FederationRound, Release, Site, Update
from concordat.api.types import LABEL_ROUND_UID
from concordat_cli.demo import rounds
from concordat_cli.demo.install import HUB
from concordat_cli.demo.target import Target, embedded
from concordat_cli.demo_command import prepare
from concordat_cli.kube import Kube
from concordat_cli.progress import Steps


@dataclass
class Federation:
    """The installed demo federation, and short ways to look at it."""

    target: Target

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

    def until(self, what: str, check: Callable[[], Any], seconds: float = 300) -> Any:
        """Wait until `check` is true; on failure say what the cluster looks like."""
        return self.kube.wait(what, check, seconds)

    def settle(self, name: str, seconds: float = 600) -> rounds.RoundView:
        """Wait for the round's end and the sites' decisions."""
        return rounds.follow(self.kube, name, Console(), seconds)

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


@pytest.fixture(scope="session")
def federation() -> Iterator[Federation]:
    """The demo federation on a cluster of its own; `KEEP_CLUSTER=1` leaves it for a look."""
    steps = Steps(Console())
    target = embedded(steps, keep=False, name="e2e")
    prepare(target, 0, steps)
    yield Federation(target)
    if not os.environ.get("KEEP_CLUSTER"):
        target.remove()
