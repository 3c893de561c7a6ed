"""`concordat`: the entry point. A user's mistake ends in one line and an exit code, never in a traceback."""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from concordat_cli import (
    cluster_commands,
    demo_command,
    engine_commands,
    policy_commands,
    round_commands,
    site_commands,
)
from concordat_cli.errors import UserError

app = typer.Typer(
    name="concordat",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Federated adapter training on Kubernetes. Exit codes: 0 done, 1 did not succeed, 2 wrong usage, "
    "3 a prerequisite is missing, 4 no cluster answers, 5 not found.",
)
app.add_typer(cluster_commands.app, name="cluster")
app.add_typer(round_commands.app, name="round")
app.add_typer(site_commands.app, name="site")
app.add_typer(policy_commands.app, name="policy")
app.command("demo")(demo_command.demo)
app.command("aggregate")(engine_commands.aggregate)
app.command("screen")(engine_commands.screen)


def _print_version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"concordat {version('concordat')}\n")
        raise typer.Exit


@app.callback()
def options(
    version_: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version.")
    ] = False,
) -> None:
    """Take the options that stand before a command."""


@app.command()
def crds(
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Folder to write one file a kind into.")] = None,
) -> None:
    """Print the custom resource definitions, to be piped into kubectl apply."""
    from concordat.api.crdgen import render_all

    for name, text in render_all().items():
        if output is None:
            sys.stdout.write(text if text.startswith("---") else f"---\n{text}")
        else:
            output.mkdir(parents=True, exist_ok=True)
            (output / name).write_text(text)


def main() -> None:
    """Run the command line."""
    try:
        app()
    except UserError as error:
        # As text: what another program said may look like markup.
        Console(stderr=True).print(Text.assemble(("error", "bold red"), f": {error}"), highlight=False, soft_wrap=True)
        sys.exit(error.code)
    except KeyboardInterrupt:
        sys.exit(130)
