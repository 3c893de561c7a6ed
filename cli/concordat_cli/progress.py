"""What is being done, how long it usually takes, how long it took."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console


class Steps:
    """Prints one line when a step starts and one when it ends; the same in a terminal and in a log."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._began: dict[str, float] = {}

    def start(self, step: str, usual_seconds: float | None = None) -> None:
        """Begin a step."""
        self._began[step] = time.monotonic()
        usual = f" [dim](usually {_span(usual_seconds)})[/]" if usual_seconds and usual_seconds >= 2 else ""
        self.console.print(f"[cyan]▸[/] {step}{usual}", highlight=False)

    def done(self, step: str) -> None:
        """End a step that went well."""
        took = time.monotonic() - self._began.pop(step, time.monotonic())
        self.console.print(f"[green]✓[/] {step} [dim]{_span(took)}[/]", highlight=False)

    def note(self, text: str) -> None:
        """Print something worth knowing."""
        self.console.print(f"  {text}", highlight=False, markup=False)

    @contextmanager
    def step(self, step: str, usual_seconds: float | None = None) -> Iterator[None]:
        """Show a step that is the body of a `with`."""
        self.start(step, usual_seconds)
        yield
        self.done(step)


def _span(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min"
