"""The settings of the image builder, which must suit every release of buildah."""

from __future__ import annotations

import os
import resource
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

from concordat_devcluster import buildah
from concordat_devcluster.buildah import Buildah

PROGRAM = '#!/bin/sh\ncat "$CONTAINERS_CONF"\n'
UNLIMITED = resource.RLIM_INFINITY


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    program = tmp_path / "bin/buildah"
    program.parent.mkdir()
    program.write_text(PROGRAM)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/concordat/buildah"


def settings() -> dict[str, Any]:
    return tomllib.loads(Buildah().run("reading the settings", "info"))


def test_networks_are_of_the_kind_that_every_release_knows(store: Path) -> None:
    found = settings()
    assert found["network"] == {"network_backend": "netavark", "network_config_dir": str(store / "networks")}
    assert found["engine"]["helper_binaries_dir"] == [str(store / "helpers")]


def test_the_network_helper_exists_and_connects_nothing(store: Path) -> None:
    settings()
    assert subprocess.run([store / "helpers/netavark"], check=False).returncode == 1


def test_settings_of_an_older_version_are_replaced(store: Path) -> None:
    store.mkdir(parents=True)
    (store / "containers.conf").write_text('[network]\nnetwork_backend = "cni"\n')
    assert settings()["network"]["network_backend"] == "netavark"


@pytest.mark.parametrize(
    ("own", "most", "given"),
    [
        ((1024, 20000), 32768, "1024:20000"),
        ((90000, 90000), 32768, "32768:32768"),
        ((1024, UNLIMITED), 32768, "1024:32768"),
        ((UNLIMITED, UNLIMITED), 4194304, "1048576:1048576"),
    ],
)
def test_a_build_raises_no_limit_of_this_process(
    monkeypatch: pytest.MonkeyPatch, store: Path, tmp_path: Path, own: tuple[int, int], most: int, given: str
) -> None:
    (tmp_path / "pid_max").write_text(f"{most}\n")
    monkeypatch.setattr(buildah, "_PID_MAX", tmp_path / "pid_max")
    limits = {resource.RLIMIT_NOFILE: (1024, 524288), resource.RLIMIT_NPROC: own}
    monkeypatch.setattr(resource, "getrlimit", limits.__getitem__)
    assert settings()["containers"]["default_ulimits"] == ["nofile=1024:524288", f"nproc={given}"]


def test_a_store_in_any_folder_is_named_rightly(monkeypatch: pytest.MonkeyPatch, store: Path, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / 'a "quoted" \\ folder'))
    folder = tmp_path / 'a "quoted" \\ folder/concordat/buildah/networks'
    assert settings()["network"]["network_config_dir"] == str(folder)
