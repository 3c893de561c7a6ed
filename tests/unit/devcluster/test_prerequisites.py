"""What is said about a machine that lacks something."""

from __future__ import annotations

from pathlib import Path

import pytest

from concordat_devcluster import prerequisites
from concordat_devcluster.prerequisites import Need

BUILDAH = Need("buildah", "builds the images", lambda: False, ("buildah",))
HEADERS = Need("libseccomp's headers", "runc needs them", lambda: False, ("libseccomp-dev",))
GO = Need("Go", "builds the programs", lambda: False, remedy="https://go.dev/dl")


def test_the_message_names_each_thing_why_and_how(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prerequisites, "has_apt", lambda: True)
    text = prerequisites.message([BUILDAH, HEADERS, GO])
    assert "buildah (builds the images)" in text
    assert "Go (builds the programs): https://go.dev/dl" in text
    assert "sudo apt-get install --yes --no-install-recommends buildah libseccomp-dev" in text


def test_without_apt_no_apt_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prerequisites, "has_apt", lambda: False)
    text = prerequisites.message([BUILDAH])
    assert "apt-get" not in text
    assert "package manager" in text


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
