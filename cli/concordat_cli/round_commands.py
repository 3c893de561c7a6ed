"""`concordat round …`."""

from __future__ import annotations

import json
import sys
import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.live import Live

from concordat.api import ConditionType, FederationRound, Release, Site, Update
from concordat.report.round_table import RoundTable, width
from concordat.report.round_view import RoundView, view
from concordat_cli.errors import Exit, UserError
from concordat_cli.kube import Kube

app = typer.Typer(no_args_is_help=True, help="Rounds at a glance.")


class Output(StrEnum):
    """The format in which a command prints."""

    TABLE = "table"
    JSON = "json"


class Form(StrEnum):
    """The forms in which `round show` prints."""

    TABLE = "table"
    WIDE = "wide"
    JSON = "json"


def read(kube: Kube, namespace: str, name: str) -> RoundView:
    """Return the round and all that belongs to it, now."""
    found = kube.get(FederationRound, namespace, name)
    if found is None:
        raise UserError(
            f"FederationRound '{name}' does not exist in namespace '{namespace}'; "
            f"list them with: {kube.hint('kubectl get fround -A')}",
            Exit.NOT_FOUND,
        )
    labels = f"concordat.dev/round-uid={found.metadata.uid}"
    return view(found, kube.list(Update, labels), kube.list(Release), kube.list(Site))


@app.command()
def show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the FederationRound.")],
    namespace: Annotated[str, typer.Option("--namespace", "-n", help="Namespace of the hub.")] = "concordat",
    kubeconfig: Annotated[Path | None, typer.Option(envvar="KUBECONFIG", help="Kubeconfig file.")] = None,
    context: Annotated[str | None, typer.Option(help="Context of the kubeconfig.")] = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Follow the round to its end.")] = False,
    output: Annotated[
        Form, typer.Option("--output", "-o", help="table, as wide as the terminal; wide, with every column; or json.")
    ] = Form.TABLE,
) -> None:
    """Show a round: sites and steps, then the verdict. With --watch, exits 1 if the round fails."""
    kube = Kube(kubeconfig=kubeconfig, context=context)
    now = read(kube, namespace, name)
    if watch:
        with Live(RoundTable(now), console=Console(stderr=output is not Form.TABLE), refresh_per_second=2) as live:
            while not now.finished:
                time.sleep(1)
                now = read(kube, namespace, name)
                live.update(RoundTable(now))
    if output is Form.JSON:
        json.dump(now.as_json(), sys.stdout, indent=2)
        sys.stdout.write("\n")
    elif output is Form.WIDE:
        Console(width=width(now)).print(RoundTable(now))
    elif not watch:
        Console().print(RoundTable(now))
    if watch and now.steps[ConditionType.SUCCEEDED] != "True":
        raise typer.Exit(Exit.FAILED)
