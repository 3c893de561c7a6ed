"""buildah with a store of its own in the user's cache."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from concordat_devcluster.errors import DevclusterError
from concordat_devcluster.paths import cache

TAIL_LINES = 25
_PID_MAX = Path("/proc/sys/kernel/pid_max")
REMEDY = (
    "When a download failed: the build uses the index and proxy settings of pip and uv on this machine "
    "(PIP_INDEX_URL, pip.conf, UV_DEFAULT_INDEX, uv.toml, HTTPS_PROXY, SSL_CERT_FILE). "
    "When the disk is full: the images need about 12 GB in {store}; removing that folder is safe."
)


class Buildah:
    """Commands on the store `cache()/buildah`. Raises DevclusterError when buildah is not installed."""

    def __init__(self) -> None:
        if shutil.which("buildah") is None:
            raise DevclusterError(
                "buildah, which builds the images, is not installed: `apt-get install buildah mmdebstrap`"
            )
        self.store = cache() / "buildah"

    def command(self, *arguments: str | Path) -> list[str]:
        """Return the command line."""
        return [
            "buildah",
            "--root",
            str(self.store / "root"),
            "--runroot",
            str(self.store / "run"),
            *map(str, arguments),
        ]

    def run(self, what: str, *arguments: str | Path, through: Sequence[str] = (), remedy: str = REMEDY) -> str:
        """Return what the command prints; `through`: a program that runs it.

        DevclusterError: what failed, and the remedy.
        """
        # No daemon and no runtime: a chroot is enough to run pip, and works inside containers too.
        environment = os.environ | {"BUILDAH_ISOLATION": "chroot", "CONTAINERS_CONF": str(self._settings())}
        command = [*through, *self.command(*arguments)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            tail = "\n    ".join((done.stdout + done.stderr).splitlines()[-TAIL_LINES:])
            raise DevclusterError(f"{what} failed:\n    {tail}\n{remedy.format(store=self.store)}")
        return done.stdout.strip()

    def _settings(self) -> Path:
        """Write containers.conf, if it is not as it should be, and return its path.

        Builds use the host's network, so no helper for networks has to be installed. But buildah looks for one on
        every start: left to itself it notes in the store which it found first, and fails when that is gone. Releases
        since 1.35 know no kind of helper but netavark. So a stub by that name lies in the store.
        """
        helper = self.store / "helpers/netavark"
        if not helper.is_file():
            helper.parent.mkdir(parents=True, exist_ok=True)
            helper.write_text("#!/bin/sh\nexit 1\n")
            helper.chmod(0o755)
        text = (
            f"[containers]\ndefault_ulimits = {json.dumps(_limits())}\n"
            f'[network]\nnetwork_backend = "netavark"\nnetwork_config_dir = {_quoted(self.store / "networks")}\n'
            f"[engine]\nhelper_binaries_dir = [{_quoted(helper.parent)}]\n"
        )
        path = self.store / "containers.conf"
        if not path.is_file() or path.read_text() != text:
            path.write_text(text)
        return path

    def images(self) -> set[str]:
        """Names, with tags, of the images in the store."""
        listed = json.loads(self.run("listing the images", "images", "--json") or "[]")
        return {name for image in listed or [] for name in image.get("names") or []}

    def build(
        self,
        name: str,
        context: Path,
        *,
        target: str | None = None,
        arguments: Mapping[str, str] | None = None,
        contexts: Mapping[str, Path] | None = None,
        mounts: Mapping[Path, str] | None = None,
    ) -> None:
        """Build the Dockerfile of `context`, or its stage `target`, under a name; `mounts` leave only empty folders."""
        options = ["--layers=false", "--network", "host", "--tag", name]
        options += ["--target", target] if target else []
        for argument, value in (arguments or {}).items():
            options += ["--build-arg", f"{argument}={value}"]
        for label, folder in (contexts or {}).items():
            options += ["--build-context", f"{label}={folder}"]
        for folder, path in (mounts or {}).items():
            options += ["--volume", f"{folder}:{path}"]
        self.run(f"building the image {target or context.name}", "build", *options, context)

    def add_archive(self, name: str, archive: Path) -> None:
        """Make an image of one archive of a root file system."""
        container = self.run("making an image", "from", "scratch")
        self.run("making an image", "add", "--quiet", container, archive, "/")
        self.run("making an image", "commit", "--quiet", "--rm", container, name)

    def tidy(self) -> None:
        """Remove what builds that were interrupted left."""
        self.run("removing containers", "rm", "--all")

    def remove(self, names: Sequence[str]) -> None:
        """Remove names of images, and the layers that no other image uses."""
        if names:
            self.run("removing old images", "rmi", *names)


def _limits() -> list[str]:
    """This process's limits on open files and processes, in buildah's notation.

    Releases since 1.35 raise both if not told otherwise, which root in a container may not do. Releases before 1.38 or
    so lower their own limit on processes to `most`, and can then raise no build's above it.
    """
    most = min(2**20, int(_PID_MAX.read_text()))
    files = resource.getrlimit(resource.RLIMIT_NOFILE)
    processes = (
        most if limit == resource.RLIM_INFINITY else min(limit, most)
        for limit in resource.getrlimit(resource.RLIMIT_NPROC)
    )
    return ["nofile={}:{}".format(*files), "nproc={}:{}".format(*processes)]


def _quoted(path: Path) -> str:
    return json.dumps(str(path), ensure_ascii=False)  # a TOML string has the same escapes
