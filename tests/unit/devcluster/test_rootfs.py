"""Where the packages of the images' base come from, and which key vouches for them."""

from __future__ import annotations

from pathlib import Path

import pytest

from concordat_devcluster import rootfs
from concordat_devcluster.errors import DevclusterError

DEB822 = """Types: deb
URIs: http://mirror.test/debian
Suites: {suite} {suite}-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
"""
ONE_LINE = "deb http://mirror.test/debian-security {suite}-security main\n"


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder with the host's release and sources: Debian 13 and a mirror."""
    monkeypatch.setattr(rootfs, "_HOST_SOURCES", (tmp_path / "sources.list", tmp_path / "debian.sources"))
    monkeypatch.setattr(rootfs, "KEYRING", tmp_path / "keyring.gpg")
    (tmp_path / "keyring.gpg").write_text("keys")
    (tmp_path / "debian.sources").write_text(DEB822.format(suite="trixie"))
    (tmp_path / "sources.list").write_text(ONE_LINE.format(suite="trixie"))
    (tmp_path / "work").mkdir()
    release(monkeypatch, "debian", "trixie")
    return tmp_path


def release(monkeypatch: pytest.MonkeyPatch, name: str, codename: str | None) -> None:
    found = {"ID": name} | ({"VERSION_CODENAME": codename} if codename else {})
    monkeypatch.setattr("platform.freedesktop_os_release", lambda: found)


def sources(host: Path) -> list[str]:
    command = rootfs.command(host / "work/base.tar")
    return command[command.index(str(host / "work/base.tar")) + 1 :]


def test_another_debian_keeps_its_mirror_with_the_suite_replaced(host: Path) -> None:
    files = [Path(source) for source in sources(host)]
    assert {file.name: file.read_text() for file in files} == {
        "sources.list": ONE_LINE.format(suite="bookworm"),
        "debian.sources": DEB822.format(suite="bookworm"),
    }


def test_the_same_debian_keeps_its_sources(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    release(monkeypatch, "debian", "bookworm")
    (host / "sources.list").write_text("\n")
    (host / "debian.sources").write_text(DEB822.format(suite="bookworm"))
    assert [Path(source).read_text() for source in sources(host)] == [DEB822.format(suite="bookworm")]


def test_sources_that_do_not_name_the_release_are_not_used(host: Path) -> None:
    (host / "sources.list").write_text(ONE_LINE.format(suite="stable"))
    assert [Path(source).name for source in sources(host)] == ["debian.sources"]


def test_a_host_that_is_no_debian_gets_debians_public_archive_and_its_key(
    host: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (host / "sources.list").write_text(ONE_LINE.format(suite="noble"))
    release(monkeypatch, "ubuntu", "noble")
    assert sources(host) == []
    assert f"--keyring={host / 'keyring.gpg'}" in rootfs.command(host / "work/base.tar")
    release(monkeypatch, "fedora", None)
    assert sources(host) == []


def test_a_missing_program_and_a_missing_keyring_are_named(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    release(monkeypatch, "ubuntu", "noble")
    monkeypatch.setattr("shutil.which", lambda _: None)
    with pytest.raises(DevclusterError, match="apt-get install mmdebstrap"):
        rootfs.make(host / "work/base.tar")
    monkeypatch.setattr("shutil.which", lambda program: f"/usr/bin/{program}")
    (host / "keyring.gpg").unlink()
    with pytest.raises(DevclusterError, match=rf"{host}/keyring.gpg.*debian-archive-keyring"):
        rootfs.make(host / "work/base.tar")


def test_only_root_needs_namespaces_for_the_mounts(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for user, begins in ((0, ["unshare", "--mount", "mmdebstrap"]), (1000, ["mmdebstrap"])):
        monkeypatch.setattr("os.geteuid", lambda user=user: user)
        assert rootfs.command(host / "work/base.tar")[: len(begins)] == begins
