"""What images are made from: keys, order, commands, and the settings that a build gets from this machine."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from concordat_devcluster import images, installers, rootfs
from concordat_devcluster.buildah import Buildah
from concordat_devcluster.dockerfile import Dockerfile, tree_digest
from concordat_devcluster.errors import DevclusterError
from concordat_devcluster.paths import REPOSITORY

DOCKERFILE = """\
ARG BASE_IMAGE=public
ARG DEPS=deps
# a comment
FROM ${BASE_IMAGE} AS base
FROM base AS deps
COPY lock.txt /lock.txt
FROM ${DEPS} AS code
COPY src /src
COPY --from=tools program /bin/program
FROM scratch AS small
COPY --from=base /bin/sh /bin/sh
"""


@pytest.fixture
def context(tmp_path: Path) -> Path:
    (tmp_path / "src/__pycache__").mkdir(parents=True)
    (tmp_path / "src/a.py").write_text("a")
    (tmp_path / "lock.txt").write_text("lock")
    return tmp_path


def keys(context: Path, text: str = DOCKERFILE, **given: str) -> dict[str, str]:
    file = Dockerfile.parse(text)
    return {name: file.key(name, context, {"public": "base-key", "tools": "t", **given}) for name in file.stages}


def changed(before: dict[str, str], after: dict[str, str]) -> set[str]:
    return {name for name in before if before[name] != after[name]}


def test_the_dockerfile_is_understood() -> None:
    file = Dockerfile.parse(DOCKERFILE)
    assert file.arguments == {"BASE_IMAGE": "public", "DEPS": "deps"}
    assert (file.stages["code"].sources, file.stages["code"].others) == (("src",), ("tools",))
    assert file.parent_argument("code") == "DEPS"
    assert file.parent_argument("deps") is None


def test_a_key_changes_with_what_goes_in_and_with_nothing_else(context: Path) -> None:
    before = keys(context)
    (context / "unrelated").write_text("x")
    (context / "src/__pycache__/a.cpython-311.pyc").write_text("x")
    assert keys(context) == before
    assert keys(context, DOCKERFILE.replace("a comment", "another")) == before
    (context / "src/a.py").write_text("b")
    assert changed(before, keys(context)) == {"code"}
    (context / "lock.txt").write_text("other")
    assert changed(before, keys(context)) == {"deps", "code"}


def test_a_key_changes_with_the_base_and_with_a_program_from_outside(context: Path) -> None:
    before = keys(context)
    assert changed(before, keys(context, public="other")) == {"base", "deps", "code", "small"}
    assert changed(before, keys(context, tools="other")) == {"code"}


def test_a_file_that_moves_or_becomes_executable_is_a_change(context: Path) -> None:
    before = tree_digest(context / "src")
    (context / "src/a.py").chmod(0o755)
    executable = tree_digest(context / "src")
    (context / "src/a.py").rename(context / "src/b.py")
    assert len({before, executable, tree_digest(context / "src")}) == 3


def test_images_come_after_what_they_are_made_from() -> None:
    planned = images.plan(["hostile", "learning", "registry"], Path("/tools/addons-1/registry"))
    names = [image.name for image in planned]
    assert names == ["base", "agent-deps", "agent", "hostile", "learning-deps", "learning", "registry"]
    by_name = {image.name: image for image in planned}
    assert by_name["hostile"].arguments == {"AGENT_IMAGE": by_name["agent"].local}
    assert by_name["learning"].arguments["LEARNING_DEPS"] == by_name["learning-deps"].local
    assert by_name["registry"].contexts == {"tools": Path("/tools/addons-1")}


def test_the_pause_image_needs_no_packages_and_no_go() -> None:
    assert [image.name for image in images.plan(["pause"], None)] == ["base", "pause"]


def test_old_code_is_removed_and_old_dependencies_are_kept() -> None:
    wanted = images.plan(["hostile"], None)
    old = {f"localhost/concordat/{name}:old" for name in ("agent", "hostile", "agent-deps", "operator", "base")}
    present = old | {image.local for image in wanted} | {"docker.io/library/python:3"}
    assert images.outdated(present, wanted) == ["localhost/concordat/hostile:old", "localhost/concordat/agent:old"]


def test_every_image_is_a_stage_or_the_hostile_site() -> None:
    stages = Dockerfile.parse((REPOSITORY / "Dockerfile").read_text()).stages
    assert set(images.IMAGES) - set(stages) == {"hostile"}


def test_without_settings_the_build_gets_none() -> None:
    assert installers.settings({"PATH": "/bin", "PIP_FIND_LINKS": "/wheels"}, {}) == {}


@pytest.mark.parametrize("own", ["UV_DEFAULT_INDEX", "UV_INDEX_URL"])
def test_uv_gets_the_index_of_pip_unless_it_has_its_own(own: str) -> None:
    pip = {"index-url": "https://index.test/simple", "extra-index-url": "\nhttps://one.test\nhttps://two.test"}
    chosen = installers.settings({}, pip)
    assert chosen["UV_DEFAULT_INDEX"] == chosen["PIP_INDEX_URL"] == "https://index.test/simple"
    assert chosen["UV_INDEX"] == "https://one.test https://two.test"
    assert installers.settings({"PIP_INDEX_URL": "https://env.test"}, pip)["UV_DEFAULT_INDEX"] == "https://env.test"
    assert "UV_INDEX" not in installers.settings({own: "https://own.test"}, pip)


def test_the_credentials_of_a_named_index_enter_and_other_secrets_do_not() -> None:
    environment = {"UV_INDEX_INNER_PASSWORD": "p", "UV_PUBLISH_TOKEN": "t", "AWS_SECRET_ACCESS_KEY": "k"}
    assert installers.settings(environment, {}) == {"UV_INDEX_INNER_PASSWORD": "p"}


def test_settings_survive_the_shell_and_files_are_mounted(tmp_path: Path) -> None:
    home, folder = tmp_path / "home", tmp_path / "mounted"
    (home / ".config/pip").mkdir(parents=True)
    (home / ".config/pip/pip.conf").write_text("[global]\nindex-url = https://a:$b%20'c@index.test/simple\n")
    (home / "ca.pem").write_text("certificates")
    folder.mkdir()
    installers.write(folder, {"HOME": str(home), "SSL_CERT_FILE": str(home / "ca.pem")})
    script = f'. {folder}/env; printf "%s %s" "$UV_DEFAULT_INDEX" "$PIP_CERT"'
    shell = subprocess.run(["/bin/sh", "-c", script], env={}, capture_output=True, text=True, check=True)
    assert shell.stdout == "https://a:$b%20'c@index.test/simple /run/installer/SSL_CERT_FILE"
    assert (folder / "SSL_CERT_FILE").read_text() == "certificates"


def test_apt_is_reached_as_on_this_machine() -> None:
    dump = 'Acquire::http::Proxy "http://proxy.test:3128";\nAcquire::http "";\nAcquire::Languages "none";\n'
    assert rootfs.apt_settings(dump) == ['Acquire::http::Proxy "http://proxy.test:3128";']


def test_a_missing_program_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DevclusterError, match="apt-get install buildah"):
        Buildah()
    with pytest.raises(DevclusterError, match="apt-get install mmdebstrap"):
        rootfs.make(tmp_path / "base.tar")


def test_a_failed_command_shows_its_last_lines(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "buildah"
    program.write_text("#!/bin/sh\necho 'no such package' >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    with pytest.raises(DevclusterError, match=r"(?s)building x failed:\n    no such package.*UV_DEFAULT_INDEX"):
        Buildah().run("building x", "build")
