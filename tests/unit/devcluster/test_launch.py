"""What the launcher does to the host's kernel."""

from __future__ import annotations

from pathlib import Path

import pytest

from concordat_devcluster import launch, processes
from concordat_devcluster.errors import DevclusterError
from concordat_devcluster.layout import Layout
from concordat_devcluster.network import Network
from concordat_devcluster.records import Run


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


def test_a_node_that_ended_shows_its_own_log(tmp_path: Path) -> None:
    """The program that was awaited may be well, and has nothing to say of it."""
    layout = Layout(tmp_path, Path("/tools"), Network(0))
    layout.logs.mkdir()
    (layout.logs / "node.log").write_text("mount /run: Operation not permitted\n")
    (layout.logs / "kubelet.log").write_text("all is well\n")
    gone = Run(pid=0, started=0, boot="", tools="/tools")
    with pytest.raises(DevclusterError, match=r"the node ended before DNS .*node.log:\n.*mount /run: Operation not"):
        launch._check_alive(layout, gone, "DNS")


def test_a_long_wait_says_what_it_is_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "SAY_SECONDS", 0)
    said: list[str] = []
    processes.wait_for("DNS", lambda: bool(said), 900, lambda: True, tmp_path / "coredns.log", said.append)
    assert said == [f"still waiting for DNS, which may take 900 s; its log: {tmp_path}/coredns.log"]
