"""`concordat demo`."""

from __future__ import annotations

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from concordat.api import ConditionType
from concordat.report.round_view import RoundView
from concordat_cli.demo import install, model, report, roster, rounds
from concordat_cli.demo.target import Target, embedded, existing
from concordat_cli.errors import Exit, UserError
from concordat_cli.progress import Steps
from concordat_cli.round_commands import Output

LOG_WIDTH = 140
"""Columns of the tables where nobody sees a terminal."""


def prepare(target: Target, seed: int, steps: Steps) -> None:
    """Install hub, evaluator and sites on the cluster, and start the federation."""
    kube, images = target.kube, target.images
    with steps.step("Installing the hub, and each site's data", 25):
        install.install_hub(kube, images, target.runtime_class)
        install.put_data(kube, images["learning"], seed)
        base = model.base_package(seed)
        trust = install.wait_for_trust(kube, evaluator=False)
        install.wait_for_data(kube)
    with steps.step("Installing the evaluator, then five sites", 25):
        install.install_site(kube, roster.EVALUATOR, images, trust)
        install.accept_members(kube, roster.EVALUATOR)
        trust = install.wait_for_trust(kube, evaluator=True)
        install.install_sites(kube, images, trust)
        install.wait_for_registry(kube)
        install.accept_members(kube, *roster.SITES)
        install.publish(kube, model.publish_genesis(kube, roster.HUB, base))
        install.wait_for_sites(kube, steps)


def demo(
    rounds_: Annotated[int, typer.Option("--rounds", min=1, max=20, help="How many rounds to run.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the data split and of the base model.")] = 0,
    keep: Annotated[bool, typer.Option("--keep", help="Go on from an earlier demo instead of starting anew.")] = False,
    context: Annotated[
        str | None, typer.Option(help="Use this context of an existing cluster instead of the embedded one.")
    ] = None,
    registry: Annotated[
        str | None,
        typer.Option(help="With --context: registry to push the images to, which the cluster can pull from."),
    ] = None,
    output: Annotated[Output, typer.Option("--output", help="table or json (on standard output).")] = Output.TABLE,
) -> None:
    """Run the demo federation on a real Kubernetes: five sites, one hostile, an evaluator, and a release."""
    console = Console(stderr=output is Output.JSON)
    if not console.is_terminal:
        console.width = LOG_WIDTH
    steps = Steps(console)
    install.check_checkout()
    if (context is None) != (registry is None):
        raise UserError("--context and --registry belong together: the cluster must be able to pull", Exit.USAGE)
    with ThreadPoolExecutor(1) as background:
        if context is None:
            reference = background.submit(model.reference, seed, rounds_)
            target = embedded(steps, keep=keep)
        else:
            reference = background.submit(model.reference, seed, rounds_)
            target = existing(context, str(registry), steps, keep=keep)
        if not keep or target.fresh:
            prepare(target, seed, steps)
        first = rounds.next_number(target.kube)
        views: list[RoundView] = []
        for number in range(first, first + rounds_):
            with steps.step(f"Round {number}: select, contract, train, verify, aggregate, evaluate, release", 100):
                views.append(rounds.run_round(target.kube, number, seed, console))
        metrics = reference.result()
    last = views[-1]
    clip_norm = rounds.manifest(first, seed)["spec"]["screening"]["clipNorm"]
    rows = report.quality(views, metrics)
    png = Path("build/demo.png").resolve()
    report.picture(png, views, rows, float(clip_norm))
    if output is Output.JSON:
        json.dump({"rounds": [v.as_json() for v in views], "quality": dict(rows), "picture": str(png)}, sys.stdout)
        sys.stdout.write("\n")
    for v in views:
        console.print(report.sites_table(v))
    console.print(report.hostile_sentence(last, clip_norm), highlight=False)
    if last.evaluation:
        console.print(report.quality_table(rows, last.evaluation["examples"]))
    console.print(f"Picture: {png}", highlight=False, soft_wrap=True)
    again = f" --context {context} --registry {registry}" if context else ""
    stop = f"cluster down --name {target.cluster}" if target.cluster else ""
    report.next_commands(target.kube, last, console, again=again, stop=stop)
    if last.steps[ConditionType.SUCCEEDED] != "True":
        raise UserError(f"round {last.name} failed: {last.message}")
