"""How long work tells the person who waits for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Progress(Protocol):
    """Receives the steps of long work, from several threads at once. A step that fails is started and not done."""

    def start(self, step: str, usual_seconds: float) -> None:
        """Work on `step` begins; it usually takes `usual_seconds` on two cores."""

    def done(self, step: str) -> None:
        """Show that a step that was started is complete."""

    def note(self, text: str) -> None:
        """Something worth knowing, between steps or during one."""


class Silent:
    """Progress that nobody watches."""

    def start(self, step: str, usual_seconds: float) -> None:
        """Say nothing."""

    def done(self, step: str) -> None:
        """Say nothing."""

    def note(self, text: str) -> None:
        """Say nothing."""


@contextmanager
def step(progress: Progress, name: str, usual_seconds: float) -> Iterator[None]:
    """Report the body as one step."""
    progress.start(name, usual_seconds)
    yield
    progress.done(name)
