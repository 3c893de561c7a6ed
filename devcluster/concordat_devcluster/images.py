"""Builds the project's images from its Dockerfile, without a daemon, and pushes them to a registry.

An image's tag is a hash of all that goes into it, so an image that exists is the right one.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from concordat_devcluster import installers, rootfs
from concordat_devcluster.buildah import Buildah
from concordat_devcluster.dockerfile import Dockerfile, digest, tree_digest
from concordat_devcluster.layout import REGISTRY_HOST, REGISTRY_PORT
from concordat_devcluster.paths import REPOSITORY, cache
from concordat_devcluster.progress import Progress, step
from concordat_devcluster.tools import ensure_tools, locked

IMAGES = ("pause", "operator", "agent", "learning", "registry", "hostile")
"""What is pushed; `hostile` is the demo's lying participant."""
WITHOUT_TOOLS = tuple(name for name in IMAGES if name != "registry")
"""Those that can be built before the node's programs are."""
HOSTILE = REPOSITORY / "examples/demo/hostile"
_PUSH_REMEDY = "Is the registry running, has its disk space, and may you push to it (`buildah login REGISTRY`)?"
_SECONDS = {"base": 60, "operator-deps": 30, "agent-deps": 30, "learning-deps": 120}
_PUSH_SECONDS = {"learning": 60, "operator": 5, "agent": 5}


@dataclass(frozen=True)
class Image:
    """One image as it should be now."""

    name: str
    key: str
    context: Path = REPOSITORY
    arguments: dict[str, str] = field(default_factory=dict)
    contexts: dict[str, Path] = field(default_factory=dict)

    @property
    def local(self) -> str:
        """Its name in buildah's store."""
        return f"localhost/concordat/{self.name}:{self.key}"


def build(progress: Progress, names: Sequence[str] = IMAGES) -> dict[str, str]:
    """Build what is missing of these images; their names in buildah's store. Raises DevclusterError."""
    with locked(cache() / "images.lock"):
        return {image.name: image.local for image in _build(Buildah(), progress, names)}


def push(
    progress: Progress,
    registry: str,
    *,
    node_pid: int | None = None,
    insecure: bool | None = None,
    names: Sequence[str] = IMAGES,
) -> dict[str, str]:
    """Build what is missing of these images and push them; how a pod refers to each, by the manifest's digest.

    With `node_pid`, the registry is the one on the loopback of that process's network namespace, and pods know it by
    its logical name. `insecure`: without TLS; by default only for a registry on this machine.
    """
    buildah = Buildah()
    through = ["nsenter", "--target", str(node_pid), "--net", "--"] if node_pid is not None else []
    if insecure is None:
        insecure = node_pid is not None or registry.split(":")[0] in ("localhost", "127.0.0.1")
    address = f"127.0.0.1:{REGISTRY_PORT}" if node_pid is not None else registry
    pushed = {}
    with locked(cache() / "images.lock"), tempfile.NamedTemporaryFile("r") as file:
        for image in _build(buildah, progress, names):
            with step(progress, f"push: {image.name}", _PUSH_SECONDS.get(image.name, 1)):
                # Layers that the registry has are not sent again, so this takes a moment for what is there already.
                options = [f"--tls-verify={str(not insecure).lower()}", "--digestfile", file.name, "--quiet"]
                options += ["--compression-format", "zstd", "--compression-level", "3"]
                where = f"docker://{address}/{image.name}:{image.key}"
                push_it = ["push", *options, image.local, where]
                buildah.run(f"pushing {image.name} to {address}", *push_it, through=through, remedy=_PUSH_REMEDY)
                manifest = Path(file.name).read_text().strip()
                pushed[image.name] = f"{registry if node_pid is None else REGISTRY_HOST}/{image.name}@{manifest}"
    return pushed


def _build(buildah: Buildah, progress: Progress, names: Sequence[str]) -> list[Image]:
    wanted = plan(names, registry_program(progress) if "registry" in names else None)
    present = buildah.images()
    missing = [image for image in wanted if image.local not in present]
    if missing:
        buildah.tidy()
    for image in missing:
        with step(progress, f"image: {image.name}", _SECONDS.get(image.name, 2)), _temporary() as folder:
            if image.name == "base":
                rootfs.make(folder / "base.tar")
                buildah.add_archive(image.local, folder / "base.tar")
            else:
                _build_stage(buildah, image, folder)
    buildah.remove(outdated(present, wanted))
    return [image for image in wanted if image.name in names]


def _build_stage(buildah: Buildah, image: Image, folder: Path) -> None:
    installers.write(folder)
    installers.uv_cache().mkdir(parents=True, exist_ok=True)
    buildah.build(
        image.local,
        image.context,
        target=image.name if image.context == REPOSITORY else None,
        arguments=image.arguments,
        contexts=image.contexts,
        mounts={folder: installers.MOUNT, installers.uv_cache(): installers.UV_CACHE},
    )


def registry_program(progress: Progress) -> Path:
    """Return the registry's binary, in a folder whose name changes with it."""
    return (ensure_tools(progress) / "registry").resolve()


def plan(names: Sequence[str], registry: Path | None) -> list[Image]:
    """These images and those that they are made from, each after what it needs."""
    file = Dockerfile.parse((REPOSITORY / "Dockerfile").read_text())
    base = Image("base", rootfs.key())
    images = {base.name: base}
    given = {file.arguments["BASE_IMAGE"]: base.key} | ({"tools": registry.parent.name} if registry else {})

    def add(name: str) -> Image:
        if name in images:
            return images[name]
        if name == "hostile":
            agent = add("agent")
            key = digest([agent.key, tree_digest(HOSTILE)])
            images[name] = Image(name, key, HOSTILE, {"AGENT_IMAGE": agent.local})
        else:
            arguments = {"BASE_IMAGE": base.local}
            argument = file.parent_argument(name)
            if argument is not None:
                arguments[argument] = add(file.arguments[argument]).local
            contexts = {"tools": registry.parent} if registry and "tools" in file.stages[name].others else {}
            images[name] = Image(name, file.key(name, REPOSITORY, given), REPOSITORY, arguments, contexts)
        return images[name]

    for name in names:
        add(name)
    return list(images.values())


def outdated(present: set[str], wanted: Sequence[Image]) -> list[str]:
    """Older builds of code images. Older dependencies stay: they are costly, and another branch may use them."""
    code = {image.name for image in wanted if image.name in IMAGES}
    current = {image.local for image in wanted}
    old = [name for name in present - current if name.split(":")[0].removeprefix("localhost/concordat/") in code]
    return sorted(old, key=lambda name: "hostile" not in name)  # what is made from another image goes first


@contextmanager
def _temporary() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="images.", dir=cache()) as folder:
        yield Path(folder)
