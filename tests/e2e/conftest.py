"""The demo federation on a cluster of its own."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from rich.console import Console

from concordat_cli.demo.target import embedded
from concordat_cli.demo_command import prepare
from concordat_cli.progress import Steps
from concordat_learning.processor import VARIABLES, another, in_use
from tests.e2e.federation import CLUSTER, Federation, held_to


@pytest.fixture(scope="session")
def federation() -> Iterator[Federation]:
    """The demo federation on a cluster of its own; `KEEP_CLUSTER=1` leaves it for a look."""
    steps = Steps(Console())
    target = embedded(steps, keep=False, name=CLUSTER)
    own, given = in_use(), {name: os.environ[name] for name in VARIABLES if name in os.environ}
    other = another(own)
    steps.note(f"torch computes with {own} here {given or ''}; one round with {dict(other)}")
    if given:
        target.images["learning"] = held_to(given)
    prepare(target, 0, steps)
    yield Federation(target, held_to(other))
    if not os.environ.get("KEEP_CLUSTER"):
        target.remove()
