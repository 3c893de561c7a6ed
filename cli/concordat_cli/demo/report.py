"""What the demo ends with: the sites, the global quality, a picture, and what to try next."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from concordat.api import ConditionType, Reason
from concordat.report.round_view import RoundView, own_quality, percent
from concordat_cli.demo.roster import HOSTILE, HUB
from concordat_cli.kube import Kube


def sites_table(v: RoundView) -> Table:
    """Return table (a): one row per site."""
    out = Table(title=f"Round {v.name}: the sites", title_justify="left")
    for column in (
        "site",
        "examples",
        "consent",
        "norm",
        "to centre",
        "trigger",
        "verdict",
        "own quality",
        "release",
    ):
        right = {"examples", "norm", "to centre", "trigger", "own quality"}
        out.add_column(column, justify="right" if column in right else "left")
    for r in v.sites:
        out.add_row(
            r.site + (" (hostile)" if r.site == HOSTILE else ""),
            "–" if r.examples is None else str(r.examples),
            {"True": "yes", "False": "no"}.get(r.steps[ConditionType.CONSENTED], "–"),
            r.norm or "–",
            r.measurements.get("centreCosine", "–"),
            r.measurements.get("triggerGain", "–"),
            r.verdict,
            own_quality(r),
            r.decision,
        )
    return out


def quality(views: list[RoundView], reference: dict[str, Any]) -> list[tuple[str, int]]:
    """Return (b): accuracy on the evaluator's hold-out data, in parts per million, in the order shown."""
    rows: list[tuple[str, int]] = []
    for v in views:
        if v.evaluation is None:
            continue
        if not rows:
            rows.append(("parent (base package)", v.evaluation["parentPpm"]))
        rows.append((f"{v.name}: candidate", v.evaluation["candidatePpm"]))
    rows.append(("local-only training, mean of the sites", int(reference["localOnlyMeanPpm"])))
    rows.append(("centralized training on the pooled data", int(reference["centralizedPpm"])))
    return rows


def quality_table(rows: list[tuple[str, int]], examples: int) -> Table:
    """Return (b) as a table."""
    out = Table(title=f"Global quality: accuracy on {examples} hold-out examples", title_justify="left")
    out.add_column("model")
    out.add_column("accuracy", justify="right")
    for name, ppm in rows:
        out.add_row(name, percent(ppm))
    return out


def picture(path: Path, views: list[RoundView], rows: list[tuple[str, int]], clip_norm: float) -> None:
    """Write (c), the same as a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    last = views[-1]
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(12, 4.5), layout="constrained")
    names = [r.site for r in last.sites]
    norms = [float(r.norm or 0) for r in last.sites]
    colours = ["tab:green" if r.verdict == Reason.VERIFIED else "tab:red" for r in last.sites]
    bars = left.bar(names, norms, color=colours)
    left.bar_label(bars, [r.verdict for r in last.sites], fontsize=8)
    left.axhline(clip_norm, color="black", linestyle="--", linewidth=1, label=f"the contract's norm, {clip_norm:g}")
    left.legend(loc="upper left", fontsize=8)
    left.set_yscale("log")
    left.set_ylim(1, max([clip_norm, *norms]) * 5)
    left.set_title(f"{last.name}: update norms and verdicts")
    left.set_ylabel("Frobenius norm")
    labels, values = [n for n, _ in rows], [p / 10_000 for _, p in rows]
    palette = ["tab:gray" if "candidate" not in n else "tab:blue" for n in labels]
    shown = right.barh(labels[::-1], values[::-1], color=palette[::-1])
    right.bar_label(shown, fmt="%.1f %%", padding=3)
    right.set_xlim(0, 110)
    right.set_title("Global quality on the evaluator's hold-out data")
    right.set_xlabel("accuracy, %")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def hostile_sentence(v: RoundView, clip_norm: str) -> str:
    """Return what became of the hostile site, with the numbers."""
    row = next((r for r in v.sites if r.site == HOSTILE), None)
    if row is None:
        return ""
    if row.verdict == Reason.VERIFIED:
        return f"{HOSTILE} (hostile) passed with norm {row.norm}; the trimmed mean bounds what it can do."
    return (
        f"{HOSTILE} (hostile) sent a sign-flipped update scaled by 20, norm {row.norm}; the contract allows "
        f"{clip_norm}. Verdict: {row.verdict}. It was never aggregated."
    )


def next_commands(kube: Kube, v: RoundView, console: Console, *, again: str, stop: str) -> None:
    """(d) Commands that work when pasted. `again`: options of another demo there; `stop`: what ends the cluster."""
    console.print("\nThe cluster is still running. Try:")
    site = v.sites[0].site if v.sites else "site-a"
    job = f"$({kube.hint(f'kubectl get jobs -n {site} -o name')} | grep round | head -1)"
    for command in (
        kube.hint("kubectl get fround,fupd,frel,fsite,fchan -A"),
        kube.hint(f"kubectl describe fround {v.name} -n {HUB}"),
        kube.hint(f"kubectl logs -n {site} ") + job,
    ):
        console.print(f"  {command}", highlight=False, soft_wrap=True)
    for command in (f"demo --keep{again}        # the next round, from where the sites are now", stop):
        if command:
            console.print(f"  .venv/bin/concordat {command}", highlight=False, soft_wrap=True)
