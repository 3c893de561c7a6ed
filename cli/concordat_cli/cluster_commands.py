"""`concordat cluster …`: embedded clusters, and what the machine needs for them."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from rich.console import Console

from concordat_cli.errors import Exit, UserError
from concordat_cli.progress import Steps
from concordat_cli.round_commands import Output
from concordat_devcluster import cluster, images, prerequisites
from concordat_devcluster.cluster import EmbeddedCluster
from concordat_devcluster.errors import DevclusterError
from concordat_devcluster.processes import path_with_sbin
from concordat_devcluster.records import State
from concordat_devcluster.tools import ensure_tools

app = typer.Typer(
    no_args_is_help=True,
    help="Embedded clusters: a complete Kubernetes node each, built from pinned sources, in namespaces of its own.",
)
Name = Annotated[str, typer.Option("--name", "-n", help="Which cluster; several can run at once.")]
OutputOption = Annotated[Output, typer.Option("--output", help="table or json (on standard output).")]

KEPT_VARIABLES = (
    *("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
    *("NO_PROXY", "ALL_PROXY", "HTTP_PROXY", "HTTPS_PROXY"),
)
KEPT_PREFIXES = ("GO", "PIP_", "UV_")


@app.command()
def up(
    name: Name = "demo",
    with_images: Annotated[bool, typer.Option("--images", help="Also build and push the project's images.")] = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Start a cluster, or find it running."""
    # What is printed to standard output can be given to a shell: eval "$(concordat cluster up)".
    found = start(name, Steps(Console(stderr=True)), with_images)
    if output is Output.JSON:
        typer.echo(json.dumps(found))
        return
    typer.echo(f"export KUBECONFIG={found['kubeconfig']}")
    typer.echo(f"export PATH={found['tools']}:$PATH    # kubectl and helm, if you have none")


@app.command()
def status(
    name: Annotated[str | None, typer.Option("--name", "-n", help="Only this cluster.")] = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Show the clusters."""
    with told():
        found = [cluster.status(name)] if name else cluster.list_all()
    if name and found[0].state is State.ABSENT:
        raise _unknown(name)
    if output is Output.JSON:
        typer.echo(json.dumps([_described(entry) for entry in found]))
        return
    for entry in found:
        ready = "ready" if entry.answers else "its API server does not answer"
        where = f"{ready}, {entry.cluster.kubeconfig}" if entry.cluster else ""
        typer.echo(f"{entry.name:<16} {entry.state:<8} {where}".rstrip())
    if not found:
        typer.echo("no clusters; make one with: concordat cluster up")


@app.command()
def down(name: Name = "demo") -> None:
    """Stop a cluster: nothing of it remains but its state, from which `up` goes on."""
    _known(name)
    stopped = stop(name, Steps(Console()))
    typer.echo(f"{name}: {'stopped' if stopped else 'was not running'}; its state is kept")


@app.command()
def reset(
    name: Name = "demo",
    keep_images: Annotated[bool, typer.Option("--keep-images", help="Keep the images that were pushed to it.")] = False,
) -> None:
    """Stop a cluster and remove its state: objects, volumes, pushed images."""
    _known(name)
    remove(name, Steps(Console()), keep_images)
    typer.echo(f"{name}: removed{' but for its images' if keep_images else ''}")


@app.command()
def kubeconfig(name: Name = "demo") -> None:
    """Print the path of the administrator's kubeconfig."""
    typer.echo(str(_running(name).kubeconfig))


@app.command()
def path(name: Name = "demo") -> None:
    """Print the folder with kubectl, helm and the cluster's other programs."""
    typer.echo(str(_running(name).tools))


@app.command("prerequisites")
def prerequisites_(
    tests: Annotated[bool, typer.Option("--tests", help="Also what the test suite needs.")] = False,
) -> None:
    """Check what this machine needs, install Debian packages that it lacks, and build the cluster's programs."""
    steps = Steps(Console())
    ready_machine(steps, for_tests=tests)
    with told():
        ensure_tools(steps)


@app.command("images")
def images_() -> None:
    """Build the project's images, but for those that hold a program of the cluster. Needs root."""
    with told():
        images.build(Steps(Console(stderr=True)), images.WITHOUT_TOOLS)


def start(name: str, steps: Steps, with_images: bool) -> dict[str, Any]:
    """Do everything from a bare machine to a running cluster; as root, or through sudo after asking."""
    ready_machine(steps, f"run the Kubernetes node '{name}' in namespaces of its own")
    if os.geteuid():
        _as_root("status")  # sudo asks for a password now, not in the middle of the lines that follow
        with _meanwhile(lambda: _as_root("images"), with_images), told():
            ensure_tools(steps)  # not as root: Go's caches stay this user's
        flags = ["--images"] if with_images else []
        found: dict[str, Any] = json.loads(_as_root("up", "--name", name, "--output", "json", *flags))
        return found
    with told():
        with _meanwhile(lambda: images.build(steps, images.WITHOUT_TOOLS), with_images):
            running = cluster.up(name, steps)
        pushed = images.push(steps, running.registry_host, node_pid=running.pid) if with_images else {}
    return _told_of(running) | {"images": pushed}


@contextmanager
def _meanwhile(work: Callable[[], object], wanted: bool) -> Iterator[None]:
    """Do `work`, if wanted, beside the body; leave when both are done. Neither fills two processors all the time."""
    with ThreadPoolExecutor(1) as pool:
        beside = pool.submit(work) if wanted else None
        yield
        if beside is not None:
            beside.result()


def stop(name: str, steps: Steps) -> bool:
    """Stop a cluster; return whether it ran."""
    if os.geteuid():
        return _elsewhere(f"stop the Kubernetes node '{name}'", "down", "--name", name)
    with told(), steps.step(f"cluster {name}: stopping", 4):
        return cluster.down(name)


def remove(name: str, steps: Steps, keep_images: bool = False) -> bool:
    """Remove a cluster, or all of it but the images that were pushed to it; whether there was one."""
    if os.geteuid():
        flags = ["--keep-images"] if keep_images else []
        return _elsewhere(f"remove the Kubernetes node '{name}'", "reset", "--name", name, *flags)
    with told(), steps.step(f"cluster {name}: removing", 6):
        return cluster.reset(name, keep_images)


def ready_machine(steps: Steps, as_root: str = "", *, for_tests: bool = False) -> None:
    """Check the prerequisites and install what packages bring. as_root: what root will be needed for afterwards.

    Root installs at once, saying what; others are asked first, once for everything, before sudo is used.
    """
    lacking = prerequisites.missing(for_tests=for_tests)
    names = prerequisites.packages(lacking)
    if any(not need.packages for need in lacking) or (names and not prerequisites.has_apt()):
        raise UserError(prerequisites.message(lacking), Exit.PREREQUISITE)
    sudo: list[str] = []
    if os.geteuid() and (names or as_root):
        wishes = [f"install {' '.join(names)}"] if names else []
        wishes += [as_root] if as_root else []
        packages_only = ["sudo", *prerequisites.install_command(names)]
        _may_use_sudo(wishes, elevated() if as_root else packages_only)
        sudo = ["sudo"]
    for need in lacking:
        steps.note(f"{need.what} is missing ({need.why})")
    with told():
        prerequisites.install(lacking, steps, sudo)


def elevated(arguments: Sequence[str] | None = None) -> list[str]:
    """Return the command that runs this program as root, with the settings of this environment that matter.

    `arguments` None: the same ones.
    """
    # By name, since the address of an index or a proxy may hold a password; but sudo replaces HOME and PATH.
    kept = [key for key in sorted(os.environ) if key.upper() in KEPT_VARIABLES or key.startswith(KEPT_PREFIXES)]
    path = path_with_sbin(os.environ.get("PATH", os.defpath))  # a user's lacks the folders where root finds modprobe
    again = [*(f"{key}={os.environ[key]}" for key in ("HOME",) if key in os.environ), f"PATH={path}"]
    own = ["-c", "from concordat_cli.main import main; main()", *(arguments or [])]
    sudo = ["sudo", f"--preserve-env={','.join(kept)}"] if kept else ["sudo"]
    return [*sudo, "env", *again, sys.executable, *(own if arguments is not None else sys.orig_argv[1:])]


_agreed = False


def _may_use_sudo(wishes: Sequence[str], command: Sequence[str]) -> None:
    global _agreed
    if _agreed:
        return
    question = f"Root is needed to {', and to '.join(wishes)}. Use sudo? [y/N] "
    try:
        if shutil.which("sudo") is None:
            raise FileNotFoundError("sudo")
        # Not standard input: tests and scripts redirect it.
        with open("/dev/tty", "r+b", buffering=0) as terminal:
            terminal.write(question.encode())
            _agreed = terminal.readline().strip().lower() in (b"y", b"yes")
    except OSError:
        pass
    if not _agreed:
        raise UserError(
            f"root is needed to {', and to '.join(wishes)}. Run as root: {shlex.join(command)}", Exit.PREREQUISITE
        )


def _as_root(*arguments: str) -> str:
    done = subprocess.run(elevated(["cluster", *arguments]), stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        known = done.returncode in list(Exit)
        raise UserError(
            f"'concordat cluster {' '.join(arguments)}' as root did not succeed; it says why above",
            Exit(done.returncode) if known else Exit.FAILED,
        )
    return done.stdout


def _elsewhere(wish: str, *arguments: str) -> bool:
    _may_use_sudo([wish], elevated(["cluster", *arguments]))
    _as_root(*arguments)
    return True


@contextmanager
def told() -> Iterator[None]:
    """Tell errors of the cluster's own package as this program tells errors."""
    try:
        yield
    except DevclusterError as error:
        raise UserError(str(error)) from None


def _known(name: str) -> None:
    with told():
        if cluster.status(name).state is State.ABSENT:
            raise _unknown(name)


def _running(name: str) -> EmbeddedCluster:
    with told():
        found = cluster.status(name)
    if found.state is State.ABSENT:
        raise _unknown(name)
    if found.cluster is None:
        raise UserError(f"cluster {name} is {found.state}; start it with: concordat cluster up --name {name}")
    return found.cluster


def _unknown(name: str) -> UserError:
    return UserError(f"there is no cluster {name}; make it with: concordat cluster up --name {name}", Exit.NOT_FOUND)


def _told_of(running: EmbeddedCluster) -> dict[str, Any]:
    return {
        "name": running.name,
        "kubeconfig": str(running.kubeconfig),
        "tools": str(running.tools),
        "address": running.address,
    }


def _described(entry: cluster.Status) -> dict[str, Any]:
    known = {"name": entry.name, "state": entry.state.value, "ready": entry.answers}
    return (_told_of(entry.cluster) if entry.cluster else {}) | known
