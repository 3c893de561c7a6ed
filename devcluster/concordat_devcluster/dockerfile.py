"""What the project's Dockerfile says about its images, and keys that change when what goes into an image does. Pure,
but for reading the files that are copied."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

NOT_COPIED = ("__pycache__", "*.pyc")
"""As in .dockerignore."""


@dataclass(frozen=True)
class Stage:
    """One stage of a Dockerfile."""

    text: str
    parent: str
    """What stands after FROM: a stage, an image, or `${ARGUMENT}`."""
    others: tuple[str, ...]
    """Stages and contexts that files are copied from."""
    sources: tuple[str, ...]
    """Files and folders that are copied from the build context."""


@dataclass(frozen=True)
class Dockerfile:
    """Stages by name, and the defaults of the arguments before the first."""

    stages: Mapping[str, Stage]
    arguments: Mapping[str, str]

    @classmethod
    def parse(cls, text: str) -> Dockerfile:
        """Read the subset of the format that the project uses: every stage named, COPY with plain arguments."""
        preface, *bodies = re.split(r"^(?=FROM )", _without_comments(text), flags=re.MULTILINE)
        stages = {}
        for body in bodies:
            parent, name = re.findall(r"^FROM (\S+) AS (\S+)$", body, re.MULTILINE)[0]
            copies = [line.split()[1:-1] for line in body.splitlines() if line.startswith("COPY ")]
            others = [words[0].removeprefix("--from=") for words in copies if words[0].startswith("--from=")]
            sources = [word for words in copies if not words[0].startswith("--from=") for word in words]
            stages[name] = Stage(body, parent, tuple(others), tuple(sources))
        return cls(stages, dict(re.findall(r"^ARG (\w+)=(\S+)$", preface, re.MULTILINE)))

    def parent_argument(self, stage: str) -> str | None:
        """Return the argument that names the stage's parent, if it is one."""
        found = re.fullmatch(r"\$\{(\w+)\}", self.stages[stage].parent)
        return found[1] if found else None

    def key(self, stage: str, context: Path, given: Mapping[str, str]) -> str:
        """Return a hash of all that makes the stage; `given`: keys of images and contexts from outside."""
        this, argument = self.stages[stage], self.parent_argument(stage)
        parent = this.parent if argument is None else self.arguments[argument]
        parts = [
            self.key(name, context, given) if name in self.stages else given.get(name, name)
            for name in (parent, *this.others)
        ]
        return digest([this.text, *parts, *(tree_digest(context / source) for source in this.sources)])


def digest(parts: Iterable[str]) -> str:
    """Return a short hash of the parts, in order."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def tree_digest(path: Path) -> str:
    """Return a hash of a file, or of a folder's files with their names and whether they can be executed."""
    files = [path] if path.is_file() else sorted(found for found in path.rglob("*") if found.is_file())
    return digest(
        part
        for file in files
        if not any(parent.match(pattern) for pattern in NOT_COPIED for parent in (file, *file.parents))
        for part in (
            file.relative_to(path.parent).as_posix(),
            oct(file.stat().st_mode & 0o777),
            hashlib.sha256(file.read_bytes()).hexdigest(),
        )
    )


def _without_comments(text: str) -> str:
    return re.sub(r"^#.*\n", "", text, flags=re.MULTILINE)
