"""`concordat aggregate` and `concordat screen`: the engine by itself, on files, without a cluster."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from concordat.api.aggregation_rules import PreAggregation, Rule
from concordat_cli.errors import Exit, UserError

Paths = Annotated[
    list[Path],
    typer.Argument(
        metavar="UPDATES...",
        help="Adapter folders as peft writes them, or safetensors files of what each site's training changed.",
    ),
]
Parent = Annotated[Path | None, typer.Option(help="The adapter folder that all were trained from, where there is one.")]
_SLACK = 1e-3


def aggregate(
    updates: Paths,
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="Where the aggregate goes, float32: a folder or a file as the updates."),
    ],
    parent: Parent = None,
    rule: Annotated[Rule, typer.Option(help="How the updates become one.")] = Rule.DNC,
    pre: Annotated[PreAggregation | None, typer.Option(help="Before the rule; by default ARC where one fits.")] = None,
    max_faulty: Annotated[int, typer.Option(min=0, help="How many faulty updates to withstand.")] = 1,
    max_norm: Annotated[
        float | None, typer.Option(help="Largest norm: longer updates are rejected and use up --max-faulty.")
    ] = None,
    rank: Annotated[
        int | None, typer.Option(min=1, help="Rank of the new adapter; by default the parent's, or the largest.")
    ] = None,
    reference: Annotated[Path | None, typer.Option(help="FLTrust: the update the others are measured by.")] = None,
    report: Annotated[Path | None, typer.Option(help="JSON file for norms, shares and what was rejected.")] = None,
    approve_held: Annotated[
        bool, typer.Option("--approve-held", help="Write the aggregate though more than --max-faulty are rejected.")
    ] = False,
) -> None:
    """Combine updates robustly. Exits 1 if the rule cannot withstand --max-faulty of so many, or more are rejected."""
    from concordat.api.aggregation_rules import UNPROTECTED, most_faulty
    from concordat_cli.engine_updates import engine_errors_as_user_errors, open_updates

    opened = open_updates(updates, reference, parent, rank)
    n = len(updates)
    before = pre or (PreAggregation.NONE if rule in UNPROTECTED else PreAggregation.ARC)
    with engine_errors_as_user_errors():
        products = opened.gram()
        cap = np.inf if max_norm is None else max_norm * (1 + _SLACK)
        kept = [i for i, norm in enumerate(products.norms[:n]) if norm <= cap]
        if not kept:
            raise UserError(f"the norm of every update is above --max-norm {max_norm}: nothing is left to aggregate")
        rejected = n - len(kept)
        held = rejected > max_faulty
        faults = most_faulty(rule, max_faulty, len(kept)) if held else max_faulty - rejected
        combined = opened.combine(kept, rule, faults, before, products.select(kept))
    shares = dict(zip(kept, combined.weights, strict=True)) if combined.weights is not None else {}
    document = {
        "rule": rule.value,
        "preAggregation": before.value,
        "maxFaulty": max_faulty,
        "remainingFaults": faults,
        "held": held,
        **({} if combined.lora is None else {"lora": combined.lora}),
        "updates": [
            {
                "name": str(path),
                "sha256": opened.digest(i),
                "norm": float(products.norms[i]),
                "aggregated": i in kept,
                "share": float(shares[i]) if i in shares else None,
            }
            for i, path in enumerate(updates)
        ],
    }
    if report is not None:
        _write_report(report, document)
    if held and not approve_held:
        raise UserError(
            f"{rejected} of {n} updates are above --max-norm and --max-faulty is {max_faulty}: more are "
            f"faulty than was declared, and {output} is not written. Look at them; then declare more, or give "
            f"--approve-held for the aggregate of the other {len(kept)}, made to withstand {faults}"
        )
    try:
        opened.write(output, combined)
    except OSError as error:
        raise UserError(f"{output} cannot be written: {error.strerror}", Exit.USAGE) from error
    out = [str(path) for i, path in enumerate(updates) if i not in kept]
    how = f", {combined.how}" if combined.how else ""
    how += f"; above --max-norm: {', '.join(out)}" if out else ""
    how += f", more than --max-faulty {max_faulty}: made to withstand {faults}" if held else ""
    Console(stderr=True).print(
        f"{len(kept)} of {n} updates to {output} by {before.value} and {rule.value}{how}",
        highlight=False,
        soft_wrap=True,
    )


def screen(
    updates: Paths,
    max_norm: Annotated[float, typer.Option(help="Largest norm an update may have.")],
    parent: Parent = None,
    max_faulty: Annotated[int, typer.Option(min=0, help="The fault budget.")] = 1,
    previous: Annotated[
        Path | None,
        typer.Option(
            help="The last aggregate: an update that repeats it is free riding. With --parent: the parent's own parent."
        ),
    ] = None,
    report: Annotated[Path | None, typer.Option(help="JSON file for all numbers.")] = None,
) -> None:
    """Show what screening finds in each update. Exits 1 if one is rejected."""
    from concordat import screening
    from concordat_cli.engine_updates import engine_errors_as_user_errors, open_updates

    opened = open_updates(updates, previous, parent)
    n = len(updates)
    with engine_errors_as_user_errors():
        products = opened.gram()
    norms = products.norms
    long = [i for i in range(n) if norms[i] > max_norm * (1 + _SLACK)]
    kept = [i for i in range(n) if i not in long]
    cosines = None
    if previous is not None:
        # Seen from the parent, its own parent lies where the last aggregate came from.
        towards = -1 if parent is not None else 1
        cosines = towards * products.inner[:, -1] / np.maximum(norms * norms[-1], np.finfo(float).tiny)
    rest = products.select(kept)
    screened = screening.screen(
        [screening.Candidate(str(updates[i]), float(norms[i]), i) for i in kept],
        rest.inner,
        rest.distances2,
        max_faulty=max_faulty,
        charged_before=len(long),
        previous=None if cosines is None else cosines[kept],
    )
    rows = [
        {
            "name": str(updates[i]),
            "reason": "NormExceeded",
            "message": f"the norm {norms[i]:.4g} is above --max-norm {max_norm:.4g}",
            "alerts": [],
            "numbers": {"norm": float(norms[i])},
        }
        for i in long
    ] + [
        {
            "name": finding.site,
            "reason": finding.reason.value,
            "message": finding.message,
            "alerts": [alert.value for alert in finding.alerts],
            "numbers": finding.numbers,
        }
        for finding in screened.findings
    ]
    rows.sort(key=lambda row: str(row["name"]))
    document = {"rejected": screened.rejected, "remainingFaults": screened.remaining_faults, "updates": rows}
    if report is not None:
        _write_report(report, document)
    _print(rows)
    if screened.rejected:
        raise typer.Exit(Exit.FAILED)


_COLUMNS = {
    "norm": "norm",
    "relativeNorm": "÷median",
    "nearestCosine": "nearest",
    "centreCosine": "centre",
    "spectralScore": "spectral",
    "krumScore": "Krum",
}


def _print(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print the table, in 80 columns, and below it what is out of the ordinary."""
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("update", overflow="fold")
    table.add_column("verdict", no_wrap=True)
    for head in _COLUMNS.values():
        table.add_column(head, no_wrap=True, justify="right")
    for row in rows:
        numbers = (row["numbers"].get(name) for name in _COLUMNS)
        cells = ["" if number is None else _number(number) for number in numbers]
        table.add_row(Text(row["name"]), row["reason"], *cells)
    console = Console(highlight=False)
    console.print(table)
    for row in rows:
        if row["reason"] != "Verified" or row["alerts"]:
            console.print(Text(f"{row['name']}: {row['message']}"))


def _number(value: float) -> str:
    return f"{value:.3f}" if abs(value) < 1000 else f"{value:.1e}"


def _write_report(path: Path, document: Mapping[str, Any]) -> None:
    try:
        path.write_text(json.dumps(document, indent=2) + "\n")
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}", Exit.USAGE) from error
