"""`concordat site …`."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
import yaml

from concordat.api import Membership, Role, Site
from concordat_cli.enrolment import manifest, membership, request
from concordat_cli.errors import Exit, UserError
from concordat_cli.kube import Kube

app = typer.Typer(no_args_is_help=True, help="Whom the hub takes for a site.")


@app.callback()
def site() -> None:
    """Keep `accept` a command of its own, though it is the only one."""


@app.command()
def accept(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the Site, which is that of its namespace.")],
    key: Annotated[
        str | None,
        typer.Option(metavar="SHA256:…", help="Its key, as the site's people read it. Without it the command asks."),
    ] = None,
    role: Annotated[Role, typer.Option(help="What the site does. An Evaluator decides releases.")] = Role.TRAINER,
    federation: Annotated[
        list[str] | None, typer.Option(help="Only these federations, instead of those that the Site names.")
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Take the key although the one before does not endorse it, in its place.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the Membership, for a Git repository, instead of applying it.")
    ] = False,
    namespace: Annotated[str, typer.Option("--namespace", "-n", help="Namespace of the hub.")] = "concordat",
    kubeconfig: Annotated[Path | None, typer.Option(envvar="KUBECONFIG", help="Kubeconfig file.")] = None,
    context: Annotated[str | None, typer.Option(help="Context of the kubeconfig.")] = None,
) -> None:
    """Accept a site, or its next key, as a member: it has shown the key, and proved that it holds it."""
    kube = Kube(kubeconfig, context)
    found = kube.get(Site, name, name)
    if found is None:
        raise UserError(
            f"Site '{name}' does not exist in namespace '{name}'; list them with: {kube.hint('kubectl get sites -A')}",
            Exit.NOT_FOUND,
        )
    asked = request(found)
    present = kube.get(Membership, namespace, name)
    wanted = membership(
        asked,
        namespace,
        present,
        datetime.now(UTC),
        role=role,
        federations=tuple(federation or ()),
        replace=replace,
    )
    _compare(f"{name}, {wanted.spec.role} in {', '.join(wanted.spec.federations)},", asked.key.thumbprint, key)
    if dry_run:
        sys.stdout.write(yaml.dump(manifest(wanted), Dumper=_Readable, sort_keys=False))
        return
    kube.apply(manifest(wanted))
    said = f"{name} is a member, by the key {asked.key.thumbprint}, in {', '.join(wanted.spec.federations)}."
    sys.stdout.write(f"{said}\n")


class _Readable(yaml.SafeDumper):
    """Writes a key over several lines, as people do."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Readable.add_representer(str, _text)


def _compare(who: str, shown: str, known: str | None) -> None:
    """Demand that somebody compared the key with what the site's people read. Raises UserError."""
    if known is not None:
        if known != shown:
            raise UserError(f"{who} shows the key {shown}, not {known}: do not accept it before you know why")
        return
    if not sys.stdin.isatty():
        raise UserError(f"{who} shows the key {shown}: compare it with the site's people, and give --key", Exit.USAGE)
    sys.stderr.write(f"{who} shows, and holds, the key {shown}\n")
    if not typer.confirm("Do the site's people read the same in their agent's log?", err=True):
        raise UserError(f"{who} is not accepted")
