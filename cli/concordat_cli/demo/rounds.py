"""Run rounds of the demo and follow them: a live table in a terminal, one line a transition in a log."""

from __future__ import annotations

import time
from typing import Any

from rich.console import Console
from rich.live import Live

from concordat.api import ConditionType, FederationRound
from concordat.report.round_table import RoundTable
from concordat.report.round_view import RoundView
from concordat_cli.demo.install import EXAMPLES
from concordat_cli.demo.roster import HUB, SITES
from concordat_cli.errors import UserError
from concordat_cli.kube import Kube, documents
from concordat_cli.round_commands import read


def manifest(number: int, seed: int) -> dict[str, Any]:
    """Return examples/demo/round.yaml with the number and the seed of this round."""
    (round_,) = documents(EXAMPLES / "round.yaml")
    round_["metadata"]["name"] = f"round-{number}"
    round_["spec"]["recipe"] |= {"seed": seed}
    return round_


def next_number(kube: Kube) -> int:
    """Return one more than the last round of the demo."""
    taken = [r.metadata.name.removeprefix("round-") for r in kube.list(FederationRound)]
    return 1 + max((int(n) for n in taken if n.isdigit()), default=0)


def settled(v: RoundView) -> bool:
    """Return whether the round ended and every site that was offered its release has decided."""
    if v.steps[ConditionType.SUCCEEDED] == "False":
        return True
    decided = [r for r in v.sites if r.decision and r.decision != "pending"]
    return v.steps[ConditionType.SUCCEEDED] == "True" and len(decided) == len(SITES)


FOLLOW_SECONDS = 9000.0
"""Longest wait for a round and the sites' decisions. The deadlines of examples/demo/round.yaml, and the limits of the
aggregator's Job and of the sites' evaluation Jobs, of half an hour each, end it before."""


def follow(kube: Kube, name: str, console: Console) -> RoundView:
    """Watch a round until it and its release are settled. Raises UserError after FOLLOW_SECONDS."""
    deadline = time.monotonic() + FOLLOW_SECONDS
    said: set[tuple[str, str, str]] = set()
    live = Live(console=console, refresh_per_second=2) if console.is_terminal else None
    if live:
        live.start()
    try:
        while True:
            now = read(kube, HUB, name)
            if live:
                live.update(RoundTable(now))
            else:
                _say(now, said, console)
            if settled(now):
                return now
            if time.monotonic() > deadline:
                raise UserError(f"round {name} did not settle in {FOLLOW_SECONDS:.0f} s: {now.message}")
            time.sleep(1)
    finally:
        if live:
            live.stop()


def _say(now: RoundView, said: set[tuple[str, str, str]], console: Console) -> None:
    news = [(now.name, step, state) for step, state in now.steps.items()]
    for row in now.sites:
        news += [(row.site, step, state) for step, state in row.steps.items()]
        news.append((row.site, "release", row.decision))
    messages = {r.site: r.message for r in now.sites}
    for who, step, state in news:
        if state in {"", "Unknown", "pending"} or (who, step, state) in said:
            continue
        said.add((who, step, state))
        why = messages.get(who, "") if state == "False" or state.startswith("rejected") else ""
        console.print(f"  {who}: {step} {state} {why}".rstrip(), highlight=False, markup=False)


def run_round(kube: Kube, number: int, seed: int, console: Console) -> RoundView:
    """Apply the manifest and follow it to its end."""
    kube.apply(manifest(number, seed))
    return follow(kube, f"round-{number}", console)
