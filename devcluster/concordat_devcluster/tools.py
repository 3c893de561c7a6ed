"""Builds the cluster's programs from the pinned Go modules, once, into the user's cache."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from concordat_devcluster.errors import DevclusterError
from concordat_devcluster.golang import Go, dotted, find_go, required_version
from concordat_devcluster.paths import MODULES, cache
from concordat_devcluster.progress import Progress, Silent, step


@dataclass(frozen=True)
class GoModule:
    """A Go module whose `tool` directives, and whose own folders with a main package, are programs of the cluster."""

    name: str
    usual_seconds: float
    tags: str = ""
    cgo: bool = False
    own: tuple[str, ...] = ()
    """Main packages of ours, each a folder of the module."""
    stamps: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """GoModule that go.mod requires → Go variable → template of its value, filled from that module's version."""
    renames: Mapping[str, str] = field(default_factory=dict)


_KUBERNETES_VERSION = {"gitVersion": "{version}", "gitMajor": "{major}", "gitMinor": "{minor}", "gitTreeState": "clean"}
_HELM_CAPABILITIES = {"k8sVersionMajor": "{major}", "k8sVersionMinor": "{minor}"}

PROGRAMS = GoModule(
    "programs",
    usual_seconds=400,
    tags="selinux,notest,grpcnotrace",
    own=("coredns", "registry", "storage"),
    stamps={
        "k8s.io/kubernetes": {
            f"{package}.{variable}": template
            for packages, variables in (
                (("k8s.io/component-base/version", "k8s.io/client-go/pkg/version"), _KUBERNETES_VERSION),
                (("helm.sh/helm/v3/pkg/chartutil", "helm.sh/helm/v3/pkg/lint/rules"), _HELM_CAPABILITIES),
            )
            for package in packages
            for variable, template in variables.items()
        },
        "helm.sh/helm/v3": {"helm.sh/helm/v3/internal/version.version": "{version}"},
    },
    renames={"server": "etcd"},
)
"""One module, so that what the programs share is downloaded and compiled once."""
NODE = GoModule("node", usual_seconds=50, tags="no_btrfs,no_zfs,no_devmapper")
"""Apart, because containerd does not build with what the kubelet of this release needs."""
RUNC = GoModule("runc", usual_seconds=10, tags="seccomp,runc_nocriu", cgo=True)
_COMPILER_MEMORY = "1GiB"
"""Before a compiler or linker collects garbage: collecting is a third of their work, and few ever get this large."""
MODULES_OF_A_NODE = (PROGRAMS, NODE, RUNC)


def control_plane_tools(progress: Progress | None = None) -> Path:
    """Folder with etcd, kube-apiserver, kube-controller-manager, kubectl and the rest of that module."""
    return _ensure(PROGRAMS, find_go(), progress or Silent())


def ensure_tools(progress: Progress | None = None) -> Path:
    """Folder with every program of the cluster; builds what is missing. The folder's path names its content.

    Raises DevclusterError when no suitable Go is found or a build fails.
    """
    go = find_go()
    folders = [_ensure(module, go, progress or Silent()) for module in MODULES_OF_A_NODE]
    union = hashlib.sha256("\n".join(folder.name for folder in folders).encode()).hexdigest()[:16]
    return _once(f"all-{union}", lambda target: _link(folders, target))


def ldflags(module: GoModule, go_mod: str) -> str:
    """Return the linker flags that strip the programs and stamp them with the version that go.mod pins."""
    flags = ["-s", "-w"]
    for stamped, variables in module.stamps.items():
        pinned = re.search(rf"^\s*(?:require )?{re.escape(stamped)} (v(\d+)\.(\d+)\S*)", go_mod, re.MULTILINE)
        if pinned is None:
            raise DevclusterError(f"{module.name}/go.mod does not require {stamped}: restore the file")
        version, major, minor = pinned.groups()
        for variable, template in variables.items():
            flags += ["-X", f"{variable}={template.format(version=version, major=major, minor=minor)}"]
    return " ".join(flags)


def build_command(module: GoModule, go_mod: str) -> list[str]:
    """Return the arguments of `go`, without the target folder."""
    tags = ["-tags", module.tags] if module.tags else []
    return ["build", "-trimpath", *tags, "-ldflags", ldflags(module, go_mod)]


def _sources(module: GoModule) -> list[str]:
    return [file.read_text() for name in module.own for file in sorted((MODULES / module.name / name).glob("*.go"))]


def folder_name(module: GoModule, go: Go) -> str:
    """Return the name of the folder with a module's programs, which changes with all that they are made from."""
    source = MODULES / module.name
    go_mod, go_sum = (source / "go.mod").read_text(), (source / "go.sum").read_text()
    toolchain = go.toolchain(required_version(go_mod))
    builder = dotted(go.version) if toolchain == "local" else toolchain
    parts = [go_mod, go_sum, *_sources(module), *build_command(module, go_mod), str(module.cgo), builder]
    key = hashlib.sha256("\0".join(parts).encode()).hexdigest()
    return f"{module.name}-{key[:16]}"


def _ensure(module: GoModule, go: Go, progress: Progress) -> Path:
    source = MODULES / module.name
    go_mod = (source / "go.mod").read_text()
    toolchain = go.toolchain(required_version(go_mod))
    command = build_command(module, go_mod)

    def build(target: Path) -> None:
        environment = (
            {"GOGC": "off", "GOMEMLIMIT": _COMPILER_MEMORY}
            | os.environ
            | {
                "CGO_ENABLED": "1" if module.cgo else "0",
                "GOTOOLCHAIN": toolchain,
                "GOFLAGS": "-mod=readonly",
                "GOWORK": "off",
            }
        )
        arguments = [str(go.command), *command, "-o", f"{target}/", "tool", *(f"./{name}" for name in module.own)]
        built = subprocess.run(arguments, cwd=source, env=environment, capture_output=True, text=True, check=False)
        if built.returncode:
            raise DevclusterError(
                f"building devcluster/{module.name} with {go.command} failed. It needs the Go module proxy "
                f"(GOPROXY) or a filled module cache. Output:\n{built.stderr[-4000:]}"
            )
        for old, new in module.renames.items():
            (target / old).rename(target / new)

    name = folder_name(module, go)
    built = cache() / "tools" / name
    if built.is_dir():
        return built
    with step(progress, f"tools: {module.name}", module.usual_seconds):
        return _once(name, build)


def _link(folders: list[Path], target: Path) -> None:
    for folder in folders:
        for program in sorted(folder.iterdir()):
            (target / program.name).symlink_to(program)


def _once(name: str, fill: Callable[[Path], None]) -> Path:
    """Return the folder tools/<name>, filled by one process only, complete or absent."""
    tools = cache() / "tools"
    target = tools / name
    if target.is_dir():
        return target
    with locked(tools / f"{name}.lock"):
        if not target.is_dir():
            temporary = Path(tempfile.mkdtemp(prefix=f"{name}.", dir=tools))
            try:
                fill(temporary)
                temporary.chmod(0o755)
                temporary.rename(target)
            except BaseException:
                shutil.rmtree(temporary)
                raise
    return target


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file `path` exclusively against other processes; waits for it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
