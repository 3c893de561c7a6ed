"""What the launcher does to the host's kernel."""

from __future__ import annotations

from pathlib import Path

import pytest

from concordat_devcluster import launch, processes
from concordat_devcluster.errors import DevclusterError


def _modprobe(folder: Path, script: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "modprobe").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "modprobe").chmod(0o755)


def test_a_module_that_is_loaded_for_the_node_changes_nothing_for_the_hosts_bridges(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bridge = tmp_path / "bridge"
    settings = [bridge / f"bridge-nf-call-{kind}tables" for kind in ("ip", "ip6", "arp")]
    lines = [f"mkdir -p {bridge}", *(f"echo 1 > {setting}" for setting in settings)]
    _modprobe(tmp_path / "bin", "\n".join(lines))
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    launch._kernel_module("br_netfilter", bridge)
    assert [setting.read_text().strip() for setting in settings] == ["0", "0", "0"]


def test_settings_of_a_module_that_was_there_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "bridge-nf-call-iptables").write_text("1")
    launch._kernel_module("br_netfilter", tmp_path)
    assert (tmp_path / "bridge-nf-call-iptables").read_text() == "1"


def test_a_machine_without_modprobe_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "find_program", lambda name: None)
    with pytest.raises(DevclusterError, match="install kmod"):
        launch._kernel_module("br_netfilter", tmp_path / "bridge")


def test_a_host_whose_settings_are_read_only_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bridge = tmp_path / "bridge"
    _modprobe(tmp_path / "bin", f"mkdir -p {bridge} && ln -s /dev/full {bridge}/bridge-nf-call-iptables")
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    with pytest.raises(DevclusterError, match=r"bridge-nf-call-iptables cannot be set to 0 \(No space"):
        launch._kernel_module("br_netfilter", bridge)


def test_programs_are_found_where_a_users_path_does_not_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert processes.path_with_sbin("/nowhere") == "/nowhere:/usr/local/sbin:/usr/sbin:/sbin"
    assert processes.find_program("chroot") in ("/usr/sbin/chroot", "/sbin/chroot")
