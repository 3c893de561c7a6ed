"""The control groups of a node, on folders that look like those of a host."""

from __future__ import annotations

from pathlib import Path

import pytest

from concordat_devcluster import cgroups
from concordat_devcluster.errors import DevclusterError

NAME = "concordat-0"


def unified(root: Path, controllers: str) -> Path:
    """A folder like a version 2 hierarchy: every group offers these controllers."""
    root.mkdir(parents=True, exist_ok=True)
    for group in (root, root / NAME, root / NAME / cgroups.PODS):
        group.mkdir(exist_ok=True)
        (group / "cgroup.controllers").write_text(controllers)
    return root


def passed_on(group: Path) -> set[str]:
    return set((group / "cgroup.subtree_control").read_text().split())


def test_kubelet_gets_hugetlb_where_the_machine_has_it(tmp_path: Path) -> None:
    """kubelet 1.36 does not start in a group that lacks hugetlb when the root group has it; systemd leaves it off."""
    root = unified(tmp_path, "cpuset cpu io memory hugetlb pids rdma misc")
    cgroups.create(NAME, root)
    for group in (root, root / NAME, root / NAME / cgroups.PODS):
        assert passed_on(group) == {"+cpu", "+cpuset", "+memory", "+pids", "+hugetlb"}


def test_hugetlb_is_not_asked_for_where_it_is_not(tmp_path: Path) -> None:
    root = unified(tmp_path, "cpuset cpu memory pids")
    cgroups.create(NAME, root)
    assert passed_on(root) == {"+cpu", "+cpuset", "+memory", "+pids"}


def test_missing_controllers_are_named_with_a_remedy(tmp_path: Path) -> None:
    root = unified(tmp_path, "memory pids")
    with pytest.raises(DevclusterError, match=r"no control group controllers cpu, cpuset.*demo --context"):
        cgroups.create(NAME, root)


def test_the_node_has_a_part_of_its_own_beside_the_pods(tmp_path: Path) -> None:
    root = unified(tmp_path, "cpuset cpu memory pids")
    cgroups.create(NAME, root)
    cgroups.enter(NAME, 4711, root)
    assert (root / NAME / "node" / "cgroup.procs").read_text() == "4711"


def test_version_1_has_both_parts_in_every_hierarchy(tmp_path: Path) -> None:
    for hierarchy in ("cpuset", "memory", "systemd"):
        (tmp_path / hierarchy).mkdir()
    (tmp_path / "cpuset" / "cpuset.cpus").write_text("0-1")
    cgroups.create(NAME, tmp_path)
    assert (tmp_path / "cpuset" / NAME / "pods" / "cpuset.cpus").read_text() == "0-1"
    cgroups.enter(NAME, 4711, tmp_path)
    assert (tmp_path / "systemd" / NAME / "node" / "cgroup.procs").read_text() == "4711"


def test_what_a_container_may_not_do_is_a_sentence(tmp_path: Path) -> None:
    root = unified(tmp_path, "cpuset cpu memory pids")
    (root / "cgroup.subtree_control").mkdir()  # writing to it fails for root too
    with pytest.raises(DevclusterError, match=r"control groups at .* cannot be set up .*--privileged"):
        cgroups.create(NAME, root)


def test_a_process_that_cannot_enter_is_a_sentence(tmp_path: Path) -> None:
    root = unified(tmp_path, "cpuset cpu memory pids")
    with pytest.raises(DevclusterError, match=r"process 4711, the node, cannot enter"):
        cgroups.enter(NAME, 4711, root)


@pytest.mark.parametrize("folders", [[], ["sys/fs/cgroup"]])
def test_a_machine_without_control_groups_is_told_so_and_leaves_nothing_to_remove(
    tmp_path: Path, folders: list[str]
) -> None:
    for folder in folders:
        (tmp_path / folder).mkdir(parents=True)
    root = tmp_path / "sys/fs/cgroup"
    with pytest.raises(DevclusterError, match=r"no control groups at .*sys/fs/cgroup.*demo --context"):
        cgroups.create(NAME, root)
    cgroups.remove(NAME, root)


def test_a_refused_write_names_its_file(tmp_path: Path) -> None:
    """The system's error has no file's name where the file can be opened and the write fails, as control groups do."""
    root = unified(tmp_path, "cpuset cpu memory pids")
    refusing = root / "cgroup.subtree_control"
    refusing.symlink_to("/dev/full")  # opens, and then refuses each write
    with pytest.raises(DevclusterError, match=rf"\(No space left on device: {refusing}\)"):
        cgroups.create(NAME, root)
