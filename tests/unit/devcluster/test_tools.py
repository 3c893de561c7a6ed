"""How the cluster's programs are built, and when they are built again."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from concordat_devcluster import tools
from concordat_devcluster.errors import DevclusterError
from concordat_devcluster.golang import Go
from concordat_devcluster.paths import MODULES

GO = Go(Path("/usr/bin/go"), (1, 30, 0))


def test_programs_say_which_release_they_are() -> None:
    flags = tools.ldflags(tools.PROGRAMS, (MODULES / "programs/go.mod").read_text())
    for stamp in (
        "k8s.io/component-base/version.gitVersion=v1.",
        "helm.sh/helm/v3/internal/version.version=v3.",
        "helm.sh/helm/v3/pkg/chartutil.k8sVersionMajor=1 ",
    ):
        assert f"-X {stamp}" in flags


def test_a_go_mod_that_lacks_a_stamped_module_is_refused() -> None:
    with pytest.raises(DevclusterError, match=r"programs/go\.mod does not require k8s\.io/kubernetes"):
        tools.ldflags(tools.PROGRAMS, "module x\n\ngo 1.26.0\n")


@pytest.mark.parametrize("changed", ["programs/go.mod", "programs/go.sum", "programs/storage/main.go"])
def test_a_changed_source_is_built_anew(changed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = tools.folder_name(tools.PROGRAMS, GO)
    shutil.copytree(MODULES / "programs", tmp_path / "programs")
    monkeypatch.setattr(tools, "MODULES", tmp_path)
    assert tools.folder_name(tools.PROGRAMS, GO) == before
    with (tmp_path / changed).open("a") as file:
        file.write("\n// changed\n")
    assert tools.folder_name(tools.PROGRAMS, GO) != before


def test_every_main_package_of_ours_is_built() -> None:
    found = {path.parent.name for path in (MODULES / "programs").glob("*/*.go")}
    assert found == set(tools.PROGRAMS.own)
