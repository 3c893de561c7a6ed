"""`concordat aggregate` and `concordat screen`: the engine by itself, on plain safetensors files, without a cluster."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from concordat.api.aggregation_rules import PreAggregation, Rule
from concordat_cli.errors import Exit, UserError

Named = Mapping[str, NDArray[Any]]
Updates = Annotated[
    list[Path], typer.Argument(metavar="UPDATES...", help="safetensors files: what each site's training changed.")
]
_SLACK = 1e-3


@dataclass(frozen=True)
class UpdateFile:
    """One file: its name stands for the site."""

    name: str
    path: Path
    tensors: Named


def aggregate(
    updates: Updates,
    output: Annotated[Path, typer.Option("--output", "-o", help="safetensors file for the aggregate, float32.")],
    rule: Annotated[Rule, typer.Option(help="How the updates become one.")] = Rule.DNC,
    pre: Annotated[PreAggregation | None, typer.Option(help="Before the rule; by default ARC where one fits.")] = None,
    max_faulty: Annotated[int, typer.Option(min=0, help="How many faulty updates to withstand.")] = 1,
    max_norm: Annotated[
        float | None,
        typer.Option(help="Largest norm: longer updates are rejected and use up --max-faulty; NormBoundedMean clips."),
    ] = None,
    reference: Annotated[Path | None, typer.Option(help="FLTrust: the update the others are measured by.")] = None,
    seed: Annotated[int, typer.Option(help="Of the rules that draw.")] = 0,
    report: Annotated[Path | None, typer.Option(help="JSON file for norms, shares and what was rejected.")] = None,
    approve_held: Annotated[
        bool, typer.Option("--approve-held", help="Write the aggregate though more than --max-faulty are rejected.")
    ] = False,
) -> None:
    """Combine updates robustly. Exits 1 if the rule cannot withstand --max-faulty of so many, or more are rejected."""
    from concordat import aggregation
    from concordat.api.aggregation_rules import STANDALONE, most_faulty
    from concordat.tensors import write_tensors

    found = _read(updates)
    before = pre or (PreAggregation.NONE if rule in STANDALONE else PreAggregation.ARC)
    try:
        rows = aggregation.Rows([update.tensors for update in found])
        products = aggregation.gram(rows)
        cap = np.inf if max_norm is None or rule is Rule.NORM_BOUNDED_MEAN else max_norm * (1 + _SLACK)
        kept = [i for i, norm in enumerate(products.norms) if norm <= cap]
        if not kept:
            raise UserError(f"the norm of every update is above --max-norm {max_norm}: nothing is left to aggregate")
        rejected = len(found) - len(kept)
        held = rejected > max_faulty
        faults = most_faulty(rule, before, max_faulty, len(kept)) if held else max_faulty - rejected
        made = aggregation.aggregate(
            rows.select(kept),
            rule,
            faults,
            parameters=aggregation.Parameters(
                pre=before,
                max_norm=max_norm,
                reference=None if reference is None else _read([reference])[0].tensors,
                seed=seed,
            ),
            gram=products.select(kept),
        )
    except aggregation.AggregationError as error:
        raise UserError(str(error)) from error
    shares = dict(zip(kept, made.weights, strict=True)) if made.weights is not None else {}
    told = {
        "rule": rule.value,
        "preAggregation": before.value,
        "maxFaulty": max_faulty,
        "remainingFaults": faults,
        "held": held,
        "updates": [
            {
                "name": update.name,
                "sha256": _sha256(update.path),
                "norm": float(products.norms[i]),
                "aggregated": i in kept,
                "share": float(shares[i]) if i in shares else None,
            }
            for i, update in enumerate(found)
        ],
    }
    if report is not None:
        _write(report, (json.dumps(told, indent=2) + "\n").encode())
    if held and not approve_held:
        raise UserError(
            f"{rejected} of {len(found)} updates are above --max-norm and --max-faulty is {max_faulty}: more are "
            f"faulty than was declared, and {output} is not written. Look at them; then declare more, or give "
            f"--approve-held for the aggregate of the other {len(kept)}, made to withstand {faults}"
        )
    _write(output, write_tensors(made.tensors))
    out = [update.name for i, update in enumerate(found) if i not in kept]
    lost = f"; above --max-norm: {', '.join(out)}" if out else ""
    lost += f", more than --max-faulty {max_faulty}: made to withstand {faults}" if held else ""
    Console(stderr=True).print(
        f"{len(kept)} of {len(found)} updates to {output} by {before.value} and {rule.value}{lost}",
        highlight=False,
        soft_wrap=True,
    )


def screen(
    updates: Updates,
    max_norm: Annotated[float, typer.Option(help="Largest norm an update may have.")],
    max_faulty: Annotated[int, typer.Option(min=0, help="The fault budget.")] = 1,
    previous: Annotated[
        Path | None, typer.Option(help="The last aggregate: an update that repeats it is free riding.")
    ] = None,
    report: Annotated[Path | None, typer.Option(help="JSON file for all numbers.")] = None,
) -> None:
    """Show what screening holds of each update. Exits 1 if one is rejected."""
    from concordat import aggregation, screening

    found = _read(updates)
    last = [] if previous is None else _read([previous])
    try:
        products = aggregation.gram(aggregation.Rows([update.tensors for update in [*found, *last]]))
    except aggregation.AggregationError as error:
        raise UserError(str(error)) from error
    norms = products.norms
    long = [i for i in range(len(found)) if norms[i] > max_norm * (1 + _SLACK)]
    kept = [i for i in range(len(found)) if i not in long]
    cosines = products.inner[:, -1] / np.maximum(norms * norms[-1], np.finfo(float).tiny) if last else None
    rest = products.select(kept)
    screened = screening.screen(
        [screening.Candidate(found[i].name, float(norms[i]), i) for i in kept],
        rest.inner,
        rest.distances2,
        max_faulty=max_faulty,
        charged_before=len(long),
        previous=None if cosines is None else cosines[kept],
    )
    rows = [
        {"name": found[i].name, "reason": "NormExceeded", "alerts": [], "numbers": {"norm": float(norms[i])}}
        for i in long
    ] + [
        {
            "name": finding.site,
            "reason": finding.reason.value,
            "alerts": [alert.value for alert in finding.alerts],
            "numbers": finding.numbers,
        }
        for finding in screened.findings
    ]
    told = {"rejected": screened.rejected, "remainingFaults": screened.remaining_faults, "updates": rows}
    if report is not None:
        _write(report, (json.dumps(told, indent=2) + "\n").encode())
    Console().print(_table(sorted(rows, key=lambda row: str(row["name"]))))
    if screened.rejected:
        raise typer.Exit(Exit.FAILED)


_COLUMNS = ("norm", "relativeNorm", "nearestCosine", "centreCosine", "spectralScore", "krumScore")


def _table(rows: Sequence[Mapping[str, Any]]) -> Table:
    table = Table("update", "verdict", *_COLUMNS, "alerts")
    for row in rows:
        numbers = (row["numbers"].get(name) for name in _COLUMNS)
        shown = ["" if number is None else f"{number:.3f}" for number in numbers]
        table.add_row(str(row["name"]), str(row["reason"]), *shown, ", ".join(row["alerts"]))
    return table


def _read(paths: Sequence[Path]) -> list[UpdateFile]:
    """Return the files, mapped. Raises UserError naming the file."""
    from concordat.tensors import FLOATS, TensorError, map_tensors

    out: list[UpdateFile] = []
    for path in paths:
        try:
            out.append(UpdateFile(str(path), path, map_tensors(path, FLOATS)))
        except OSError as error:
            raise UserError(f"{path} cannot be read: {error.strerror}", Exit.USAGE) from error
        except TensorError as error:
            raise UserError(f"{path}: {error}", Exit.USAGE) from error
    return out


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write(path: Path, data: bytes) -> None:
    try:
        path.write_bytes(data)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}", Exit.USAGE) from error
