"""`concordat policy …`."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Annotated, Any

import typer
import yaml

from concordat.api import Reason
from concordat.protocol.contract import Contract
from concordat.protocol.document import DocumentError
from concordat_agent.policy import PolicyError, SitePolicy
from concordat_agent.updates.consent import Request, consent
from concordat_cli.errors import Exit, UserError
from concordat_cli.policy_text import sentences
from concordat_devcluster.paths import REPOSITORY

app = typer.Typer(no_args_is_help=True, help="The rules of a site.")

_CHART_VALUES = REPOSITORY / "charts/concordat-site/values.yaml"


@app.callback()
def policy() -> None:
    """Keep `check` a command of its own, though it is the only one."""


@app.command()
def check(
    file: Annotated[
        typer.FileBinaryRead,
        typer.Argument(metavar="FILE", help="Helm values of a site, or the policy.json of its agent; - is stdin."),
    ],
    contract: Annotated[
        typer.FileBinaryRead | None,
        typer.Option(metavar="FILE", help="contract.json of a round: say whether the site would consent to it."),
    ] = None,
) -> None:
    """Check a site's policy and say in plain words what it allows.

    Exits 2 if the policy is not valid, and with --contract 1 if the site would refuse the round.
    """
    site_policy, federations = _read(file)
    if contract is None:
        lines = [f"Valid, with digest {site_policy.digest}:", *sentences(site_policy, federations)]
        sys.stdout.write("\n- ".join(lines) + "\n")
        return
    request = _request(contract, federations)
    answer = consent(site_policy, request)
    refused = not answer.passed and answer.reason is not Reason.WAITING
    why = "no rule is against it, if the hub signed the contract." if answer.passed else answer.message
    sys.stdout.write(f"{'Refuses' if refused else 'Consents'}: {why}\n")
    for assumption in _assumptions(site_policy, federations):
        sys.stdout.write(f"Not known here: {assumption}\n")
    if refused:
        raise typer.Exit(Exit.FAILED)


def _read(file: typer.FileBinaryRead) -> tuple[SitePolicy, list[str] | None]:
    """Return the policy, and the site's federations if the file is one of Helm values. Raises UserError."""
    values = _load(file.name, file.read())
    federations = None
    if "policy" in values:
        values = _with_defaults(_chart_values(), values)
        listed = values.get("federations")
        named = [entry for entry in listed if isinstance(entry, dict)] if isinstance(listed, list) else []
        federations = [str(entry.get("name")) for entry in named]
        values = values.get("policy", {})
    try:
        return SitePolicy.from_json(json.dumps(values, default=str)), federations
    except PolicyError as error:
        wrong = "".join(f"\n- {problem}" for problem in error.problems)
        raise UserError(f"{file.name} has no valid policy; correct these fields:{wrong}", Exit.USAGE) from None


def _load(name: str, data: bytes) -> dict[str, Any]:
    try:
        values = yaml.safe_load(data)  # JSON is YAML.
    except yaml.YAMLError as error:
        raise UserError(f"{name} is neither YAML nor JSON: {error}", Exit.USAGE) from None
    if not isinstance(values, dict):
        raise UserError(f"{name} holds no values: it needs a member `policy`, or those of a policy", Exit.USAGE)
    return values


def _chart_values() -> dict[str, Any]:
    """Return the chart's defaults, which Helm adds to a site's values. Raises UserError."""
    try:
        return _load(str(_CHART_VALUES), _CHART_VALUES.read_bytes())
    except OSError:
        raise UserError(
            f"{_CHART_VALUES}, with the chart's defaults, is not there: run this from a source checkout, or check the "
            r"site's policy.json: kubectl get configmap concordat-agent -n SITE -o jsonpath='{.data.policy\.json}'",
            Exit.PREREQUISITE,
        ) from None


def _with_defaults(defaults: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Merge as Helm does: maps member by member, and null takes a default away."""
    merged = {**defaults, **values}
    for name, value in values.items():
        default = defaults.get(name)
        if isinstance(value, dict) and isinstance(default, dict):
            merged[name] = _with_defaults(default, value)
    return {name: value for name, value in merged.items() if value is not None}


def _request(file: typer.FileBinaryRead, federations: list[str] | None) -> Request:
    """Return the request as the site gets it when the round opens. Raises UserError."""
    try:
        contract = Contract.from_bytes(file.read())
    except DocumentError as error:
        raise UserError(f"{file.name} is no contract: {error}", Exit.USAGE) from None
    return Request(
        contract=contract,
        federations=[contract.federation] if federations is None else federations,
        at=contract.opens,
        deadline=contract.consent_deadline,
    )


def _assumptions(site_policy: SitePolicy, federations: list[str] | None) -> list[str]:
    """Return what only the site's agent can tell."""
    assumptions = []
    if federations is None:
        assumptions.append("whether the site takes part in the federation, which its values say.")
    if site_policy.consent.max_wall_seconds_per_day is not None:
        assumptions.append("what the site consented to in the 24 hours before; it is taken for nothing.")
    return assumptions
