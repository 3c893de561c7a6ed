"""The report as one picture, report.svg: norms, direction, spectrum, and the functional check.

Written as text: a library for plots takes seconds to load, and half a minute to draw a thousand sites. Nothing in it
needs escaping: the API allows letters, digits, dots and dashes in names and reasons.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from concordat.protocol.aggregation import AggregationReport, ReportedUpdate
from concordat.protocol.contract import Contract

PASSED, REJECTED = "#4878a8", "#c44e52"
HEIGHT, TOP, LEFT, GAP = 180, 60, 60, 40
"""Of the drawn part of a panel; from the top and the left of the picture; between two panels."""
SLOT = 11
"""Room of a bar and its name, which is at least as wide as a line of its letters is high."""
NARROWEST = 440
LETTER = 5.2
"""Width of a letter of the names, about; they are written upwards."""
TICKS = 4


@dataclass(frozen=True)
class Bar:
    """A value, the name below it, and why it is rejected if it is."""

    value: float
    name: str
    rejected: str = ""


def draw(report: AggregationReport, contract: Contract) -> bytes:
    """Return the picture, SVG. The same report gives the same bytes."""
    verdicts, canary = report.verdicts, contract.screening.canary
    shares = [Bar(100 * float(share), str(number)) for number, share in enumerate(report.spectrum, 1)]
    limit = [] if canary is None else [canary.max_trigger_gain_ppm / 1e6]
    panels = [
        [
            ("norm of the weight change", _bars(verdicts, "norm"), [float(contract.screening.clip_norm)]),
            ("cosine to the centre of the nearest", _bars(verdicts, "centreCosine"), [0.0]),
        ],
        [
            ("energy of the accepted by principal component, %", shares, []),
            ("response to a known trigger", _bars(verdicts, "triggerGain"), limit),
        ],
    ]
    names = max((len(bar.name) for row in panels for _, bars, _ in row for bar in bars), default=0)
    width = max(NARROWEST, SLOT * max(len(verdicts), len(shares)))
    right, down = LEFT + width + GAP, HEIGHT + GAP + LETTER * names
    size = f"{_number(2 * right)} {_number(TOP + 2 * down)}"
    title = f"{contract.round.name}: {report.reason} ({report.rule} after {report.pre_aggregation})"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size}" font-family="sans-serif" font-size="9">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="{LEFT}" y="24" font-size="14">{title}</text>',
    ]
    for y, row in enumerate(panels):
        for x, (heading, bars, limits) in enumerate(row):
            parts.append(f'<g transform="translate({_number(LEFT + x * right)} {_number(TOP + y * down)})">')
            parts += [f'<text y="-8" font-size="11">{heading}</text>', *_panel(bars, limits, width), "</g>"]
    return "\n".join([*parts, "</svg>", ""]).encode()


def _bars(verdicts: Sequence[ReportedUpdate], name: str) -> list[Bar]:
    """Return a bar for each site; a number that it does not have is zero."""
    values = [v.measurements.get(name) or (v.norm if name == "norm" else None) or 0 for v in verdicts]
    return [Bar(float(value), v.site, "" if v.passed else v.reason) for value, v in zip(values, verdicts, strict=True)]


def _panel(bars: Sequence[Bar], limits: Sequence[float], width: float) -> Iterable[str]:
    """Yield the scale, a bar for each value, and the limits as broken lines; the rejected with their reason."""
    values = [0.0, *(bar.value for bar in bars), *limits]
    low, high = min(values), max(values)
    unit = HEIGHT / ((high - low) or 1.0)

    def at(value: float) -> float:
        return HEIGHT - (value - low) * unit

    for tick in range(TICKS + 1):
        value = low + (high - low or 1.0) * tick / TICKS
        yield f'<path d="M0 {_number(at(value))}H{_number(width)}" stroke="#ddd"/>'
        yield f'<text x="-4" y="{_number(at(value) + 3)}" text-anchor="end">{value:.3g}</text>'
    slot = width / max(len(bars), 1)
    for place, bar in enumerate(bars):
        upper, lower = sorted((at(bar.value), at(0)))
        box = f'x="{_number((place + 0.1) * slot)}" y="{_number(upper)}" width="{_number(0.8 * slot)}"'
        yield f'<rect {box} height="{_number(lower - upper)}" fill="{REJECTED if bar.rejected else PASSED}"/>'
        upright = f'transform="translate({_number((place + 0.5) * slot + 3)} '
        yield f'<text {upright}{HEIGHT + 6})rotate(-90)" text-anchor="end">{bar.name}</text>'
        if bar.rejected:
            yield f'<text {upright}{HEIGHT - 4})rotate(-90)" fill-opacity="0.8">{bar.rejected}</text>'
    for limit in limits:
        yield f'<path d="M0 {_number(at(limit))}H{_number(width)}" stroke="black" stroke-dasharray="4 3"/>'


def _number(value: float) -> str:
    return f"{value:.1f}"
