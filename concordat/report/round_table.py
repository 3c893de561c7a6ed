"""A round on a terminal: a column per step where there is room, one for all steps where there is not.

No value is cut. In a narrow terminal a long name or reason goes on in the next line, broken where its words meet.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from rich.columns import Columns
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from concordat.report.round_view import ROUND_STEPS, STEPS, RoundView, SiteRow, own_quality

MARKS = {
    "True": Text("✓", style="green"),
    "False": Text("✗", style="red"),
    "Unknown": Text("…", style="yellow"),
    "": Text("·", style="dim"),
}
_GAP = 2
"""Blanks between two columns."""
_LEAST = 8
"""Narrowest that a column of names or reasons becomes."""
_WORD = re.compile(r"(?<=[-\s])")
_CAPITAL = re.compile(r"(?<=[a-z])(?=[A-Z])")


def broken(text: str, width: int) -> str:
    """Return the text in lines of at most `width`, broken at blanks, after hyphens and, in long words, before capitals.

    What cannot be broken there stays whole.
    """
    lines = [""]
    for word in _WORD.split(text):
        whole = len(word.rstrip()) <= width
        if not whole and lines[-1]:
            lines.append("")
        for piece in [word] if whole else _CAPITAL.split(word):
            if lines[-1] and len(lines[-1]) + len(piece.rstrip()) > width:
                lines.append("")
            lines[-1] += piece
    return "\n".join(line.rstrip() for line in lines)


@dataclass(frozen=True)
class RoundTable:
    """A round as rich prints it: how it stands, its steps, its sites, and what stands in the way."""

    view: RoundView

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        v = self.view
        # First, because a terminal may have fewer lines than the round has sites.
        yield Text.assemble(
            (f"round {v.name}", "bold"), *(f": {part}" for part in (v.phase or "New", v.message) if part)
        )
        yield Columns([Text.assemble(MARKS[v.steps[step]], " ", step) for step in ROUND_STEPS], padding=(0, _GAP, 0, 0))
        if not v.sites:
            return
        yield ""
        full = full_table(v)
        if Measurement.get(console, options.update(max_width=10_000), full).maximum <= options.max_width:
            yield full
        else:
            yield compact_table(v, options.max_width)
            yield Text(f"\nsteps: {', '.join(STEPS)}", style="dim")
        yield ""
        yield from (Text(line, style="dim") for line in attested(v.sites))
        yield from (Text(f"{row.site}: {row.message}", style="yellow") for row in v.sites if row.message)


def attested(rows: Sequence[SiteRow]) -> list[str]:
    """Return for each tier of attestation the sites whose updates came with a grant of it, and the grants."""
    tiers = sorted({row.tier for row in rows if row.tier})
    return [
        f"attested {tier}, by grant: "
        + ", ".join(f"{row.site} {row.grant.removeprefix('sha256:')[:12]}" for row in rows if row.tier == tier)
        for tier in tiers
    ]


def width(v: RoundView) -> int:
    """Return the columns that the full table needs."""
    console = Console(width=10_000)
    return max(80, Measurement.get(console, console.options, full_table(v)).maximum)


def full_table(v: RoundView) -> Table:
    """Return the table with a column per step."""
    out = _table()
    out.add_column("site", no_wrap=True)
    out.add_column("examples", justify="right", no_wrap=True)
    for step in STEPS:
        out.add_column(broken(step, _LEAST).lower(), no_wrap=True)
    out.add_column("norm", justify="right", no_wrap=True)
    out.add_column("verdict", no_wrap=True)
    out.add_column("own quality", justify="right", no_wrap=True)
    out.add_column("release", no_wrap=True)
    for row in v.sites:
        site, norm, *rest = _cells(row)
        examples = "–" if row.examples is None else str(row.examples)
        out.add_row(site, examples, *(MARKS[row.steps[step]] for step in STEPS), norm, *rest)
    return out


def compact_table(v: RoundView, width: int) -> Table:
    """Return the table with the steps as one column of marks, in `width` columns of the terminal."""
    headers = ("site", "norm", "verdict", "own quality", "release")
    rows = [_cells(row) for row in v.sites]
    longest = [max(map(len, column)) for column in zip(headers, *rows, strict=True)]
    room = width - len(STEPS) - _GAP * len(headers)
    limit = max(longest)
    while limit > _LEAST and sum(min(limit, chars) for chars in longest) > room:
        limit -= 1
    out = _table()
    for header in (headers[0], "steps", *headers[1:]):
        right = header in {"norm", "own quality"}
        out.add_column(broken(header, limit), justify="right" if right else "left", overflow="fold")
    for row, cells in zip(v.sites, rows, strict=True):
        site, *rest = (broken(cell, limit) for cell in cells)
        out.add_row(site, Text.assemble(*(MARKS[row.steps[step]] for step in STEPS)), *rest)
    return out


def _table() -> Table:
    return Table(box=None, header_style="bold", padding=(0, _GAP, 0, 0), pad_edge=False)


def _cells(row: SiteRow) -> Sequence[str]:
    return row.site, row.norm or "–", row.verdict, own_quality(row), row.decision
