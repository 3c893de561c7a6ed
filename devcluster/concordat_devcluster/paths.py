"""Where things are: the repository's folders and the user's cache."""

from __future__ import annotations

import os
from pathlib import Path

MODULES = Path(__file__).parents[1]
"""Folder of the pinned Go modules."""
REPOSITORY = MODULES.parent
"""Root of the repository: the build context of the images."""
CRDS = REPOSITORY / "crds"


def cache() -> Path:
    """Folder for everything that can be made again: `$XDG_CACHE_HOME/concordat`, else `~/.cache/concordat`."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "concordat"
