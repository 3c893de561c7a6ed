"""What is said about a machine that lacks something."""

from __future__ import annotations

from pathlib import Path

import pytest

from concordat_devcluster import prerequisites, rootfs
from concordat_devcluster.prerequisites import Need
from concordat_devcluster.progress import Silent

BUILDAH = Need("buildah", "builds the images", lambda: False, ("buildah",))
HEADERS = Need("libseccomp's headers", "runc needs them", lambda: False, ("libseccomp-dev",))
GO = Need("Go", "builds the programs", lambda: False, remedy="https://go.dev/dl")


APT = "env DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 apt-get"


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The only folder in PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


def add(folder: Path, name: str, script: str = "") -> None:
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


def test_the_message_names_each_thing_why_and_how(programs: Path) -> None:
    add(programs, "apt-get")
    text = prerequisites.message([BUILDAH, HEADERS, GO])
    assert "buildah (builds the images)" in text
    assert "Go (builds the programs): https://go.dev/dl" in text
    assert f"sudo {APT} install --yes --no-install-recommends buildah libseccomp-dev" in text


def test_fedora_gets_its_own_names_and_its_own_command(programs: Path) -> None:
    add(programs, "dnf")
    wanted = [need for need in prerequisites.needs() if need.packages]
    text = prerequisites.message([*wanted, *prerequisites.test_needs()])
    assert text.splitlines()[-1] == (
        "install the packages with: sudo dnf install gcc glibc-devel pkgconf-pkg-config libseccomp-devel buildah "
        "mmdebstrap debian-keyring iproute nftables util-linux curl jq openssl"
    )
    assert "libseccomp's headers (runc filters system calls with it): package libseccomp-devel" in text
    assert "apt-get" not in text


def test_without_a_known_package_manager_no_command(programs: Path) -> None:
    text = prerequisites.message([BUILDAH])
    assert "sudo" not in text
    assert "package manager" in text


def test_debians_keyring_is_a_need_of_its_own() -> None:
    [need] = [need for need in prerequisites.needs() if need.packages == ("debian-archive-keyring",)]
    assert str(rootfs.KEYRING) in need.what
    assert need.present() is rootfs.KEYRING.is_file()


@pytest.mark.parametrize("sudo", [[], ["sudo"]])
def test_what_is_run_asks_nothing_and_is_what_is_printed(
    programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sudo: list[str]
) -> None:
    log = tmp_path / "log"
    # As sudo does it: of the environment little remains.
    add(programs, "sudo", f'exec /usr/bin/env -i PATH="{programs}" "$@"')
    add(programs, "env", 'exec /usr/bin/env "$@"')
    report = 'echo "$DEBIAN_FRONTEND $NEEDRESTART_SUSPEND" "$@"'
    add(programs, "apt-get", f'{{ {report}; if read -r answer; then echo "$answer"; fi; }} >> {log}')
    monkeypatch.setattr(prerequisites, "_APT_LISTS", tmp_path / "lists")
    prerequisites.install([BUILDAH], Silent(), sudo)
    assert log.read_text().splitlines() == [
        "noninteractive 1 update",
        "noninteractive 1 install --yes --no-install-recommends buildah",
    ]
    assert " ".join(prerequisites.install_command(["buildah"])) in prerequisites.message([BUILDAH])


def test_every_need_can_be_met() -> None:
    for need in prerequisites.needs():
        assert need.what
        assert need.why
        assert need.packages or need.remedy, need.what


@pytest.mark.parametrize(
    ("path", "kind"),
    [("/home/me/.cache", "overlay"), ("/data/cache", "ext4"), ("/data", "ext4"), ("/database", "overlay")],
)
def test_the_file_system_of_a_path_is_that_of_its_nearest_mount(path: str, kind: str) -> None:
    mounts = [(Path("/"), "rootfs"), (Path("/"), "overlay"), (Path("/data"), "ext4")]
    assert prerequisites.filesystem_of(Path(path), mounts) == kind
