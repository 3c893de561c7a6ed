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
class Module:
    """A Go module whose `tool` directives are programs of the cluster."""

    name: str
    usual_seconds: float
    tags: str = ""
    cgo: bool = False
    stamps: Mapping[str, str] = field(default_factory=dict)
    """Go variable → template of its value, filled from the version of the module `stamped`."""
    stamped: str = ""
    renames: Mapping[str, str] = field(default_factory=dict)


_KUBERNETES_STAMPS = {
    f"k8s.io/{package}/version.{variable}": value
    for package in ("component-base", "client-go/pkg")
    for variable, value in (("gitVersion", "{version}"), ("gitMajor", "{major}"), ("gitMinor", "{minor}"))
}

KUBERNETES = Module(
    "kubernetes",
    usual_seconds=340,
    tags="selinux,notest,grpcnotrace",
    stamps=_KUBERNETES_STAMPS | {"k8s.io/component-base/version.gitTreeState": "clean"},
    stamped="k8s.io/kubernetes",
    renames={"server": "etcd"},
)
MODULES_OF_A_NODE = (
    KUBERNETES,
    Module("node", usual_seconds=60, tags="no_btrfs,no_zfs,no_devmapper"),
    Module("runc", usual_seconds=10, tags="seccomp,runc_nocriu", cgo=True),
    Module(
        "addons",
        usual_seconds=165,
        tags="remove_all_sd",
        stamps={
            "helm.sh/helm/v3/internal/version.version": "{version}",
            "helm.sh/helm/v3/pkg/chartutil.k8sVersionMajor": "1",
            "helm.sh/helm/v3/pkg/chartutil.k8sVersionMinor": "36",
            "helm.sh/helm/v3/pkg/lint/rules.k8sVersionMajor": "1",
            "helm.sh/helm/v3/pkg/lint/rules.k8sVersionMinor": "36",
        },
        stamped="helm.sh/helm/v3",
    ),
    Module("storage", usual_seconds=60),
)


def control_plane_tools(progress: Progress | None = None) -> Path:
    """Folder with etcd, kube-apiserver, kube-controller-manager, kubectl and the rest of that module."""
    return _ensure(KUBERNETES, find_go(), progress or Silent())


def ensure_tools(progress: Progress | None = None) -> Path:
    """Folder with every program of the cluster; builds what is missing. The folder's path names its content.

    Raises DevclusterError when no suitable Go is found or a build fails.
    """
    go = find_go()
    folders = [_ensure(module, go, progress or Silent()) for module in MODULES_OF_A_NODE]
    union = hashlib.sha256("\n".join(folder.name for folder in folders).encode()).hexdigest()[:16]
    return _once(f"all-{union}", lambda target: _link(folders, target))


def ldflags(module: Module, go_mod: str) -> str:
    """The linker flags that strip the programs and stamp them with the version that go.mod pins."""
    flags = ["-s", "-w"]
    if module.stamps:
        pinned = re.search(rf"^\s*(?:require )?{re.escape(module.stamped)} (v(\d+)\.(\d+)\S*)", go_mod, re.MULTILINE)
        if pinned is None:
            raise DevclusterError(f"{module.name}/go.mod does not require {module.stamped}: restore the file")
        version, major, minor = pinned.groups()
        for variable, template in module.stamps.items():
            flags += ["-X", f"{variable}={template.format(version=version, major=major, minor=minor)}"]
    return " ".join(flags)


def build_command(module: Module, go_mod: str) -> list[str]:
    """The arguments of `go`, without the target folder."""
    tags = ["-tags", module.tags] if module.tags else []
    return ["build", "-trimpath", *tags, "-ldflags", ldflags(module, go_mod)]


def _ensure(module: Module, go: Go, progress: Progress) -> Path:
    source = MODULES / module.name
    go_mod, go_sum = (source / "go.mod").read_text(), (source / "go.sum").read_text()
    toolchain = go.toolchain(required_version(go_mod))
    command = build_command(module, go_mod)
    builder = dotted(go.version) if toolchain == "local" else toolchain
    key = hashlib.sha256("\0".join([go_mod, go_sum, *command, str(module.cgo), builder]).encode()).hexdigest()

    def build(target: Path) -> None:
        environment = os.environ | {
            "CGO_ENABLED": "1" if module.cgo else "0",
            "GOTOOLCHAIN": toolchain,
            "GOFLAGS": "-mod=readonly",
            "GOWORK": "off",
        }
        arguments = [str(go.command), *command, "-o", f"{target}/", "tool"]
        built = subprocess.run(arguments, cwd=source, env=environment, capture_output=True, text=True, check=False)
        if built.returncode:
            raise DevclusterError(
                f"building devcluster/{module.name} with {go.command} failed. It needs the Go module proxy "
                f"(GOPROXY) or a filled module cache. Output:\n{built.stderr[-4000:]}"
            )
        for old, new in module.renames.items():
            (target / old).rename(target / new)

    name = f"{module.name}-{key[:16]}"
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
    """The folder tools/<name>, filled by one process only, complete or absent."""
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
