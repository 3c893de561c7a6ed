"""The report as one picture, report.svg: norms, direction, spectrum, and the functional check."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from concordat.protocol.aggregation import AggregationReport, ReportedUpdate
from concordat.protocol.contract import Contract

PASSED, REJECTED = "#4878a8", "#c44e52"


def draw(report: AggregationReport, contract: Contract) -> bytes:
    """Return the picture, SVG. The same report gives the same bytes."""
    # Only the Job draws: the operator need not load this.
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "concordat"
    import matplotlib.pyplot as plt

    verdicts = report.verdicts
    figure, axes = plt.subplots(2, 2, figsize=(11, 7), layout="constrained")
    figure.suptitle(f"{contract.round.name}: {report.reason} ({report.rule} after {report.pre_aggregation})")
    _bars(axes[0, 0], verdicts, "norm", "norm of the weight change", [float(contract.screening.clip_norm)])
    _bars(axes[0, 1], verdicts, "centreCosine", "cosine to the centre of the nearest", [0.0])
    shares = [100 * float(share) for share in report.spectrum]
    axes[1, 0].bar(range(1, len(shares) + 1), shares, color=PASSED)
    axes[1, 0].set_title("energy of the accepted by principal component, %", fontsize=9)
    canary = contract.screening.canary
    limit = [] if canary is None else [canary.max_trigger_gain_ppm / 1e6]
    _bars(axes[1, 1], verdicts, "triggerGain", "response to a known trigger", limit)
    out = io.BytesIO()
    figure.savefig(out, format="svg", metadata={"Date": None})
    plt.close(figure)
    return out.getvalue()


def _bars(axis: Any, verdicts: Sequence[ReportedUpdate], name: str, title: str, limits: Sequence[float]) -> None:
    """One bar a site that has the number; the rejected in another colour, with their reason."""
    axis.set_title(title, fontsize=9)
    for place, verdict in enumerate(verdicts):
        value = float(verdict.measurements.get(name) or (verdict.norm if name == "norm" else None) or 0)
        axis.bar(place, value, color=PASSED if verdict.passed else REJECTED)
        if not verdict.passed:
            axis.text(place, value, verdict.reason, rotation=90, fontsize=6, ha="center", va="bottom")
    for limit in limits:
        axis.axhline(limit, color="black", linewidth=0.8, linestyle="--")
    axis.set_xticks(range(len(verdicts)), [verdict.site for verdict in verdicts], rotation=90, fontsize=6)
