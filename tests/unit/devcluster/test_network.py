"""Which addresses a new cluster gets."""

from __future__ import annotations

import json
import shutil

import pytest

from concordat_devcluster import network
from concordat_devcluster.errors import DevclusterError


@pytest.mark.parametrize(
    ("routes", "taken", "slot"),
    [
        (["default", "192.0.2.0/24"], set(), 0),
        (["0.0.0.0/1", "128.0.0.0/1"], set(), 0),
        (["198.18.1.0/24"], set(), 1),
        (["198.18.0.0/20", "broadcast"], {4}, 5),
    ],
    ids=["free", "a VPN takes everything", "another user's cluster", "a stopped cluster"],
)
def test_a_slot_that_nothing_else_uses(
    routes: list[str], taken: set[int], slot: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network, "ip", lambda *_: json.dumps([{"dst": route} for route in routes]))
    assert network.free_slot(taken) == slot


def test_no_slot_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "ip", lambda *_: json.dumps([{"dst": "198.18.0.0/15"}]))
    with pytest.raises(DevclusterError, match="all 128 address slots"):
        network.free_slot(set())


def test_ip_is_found_where_a_users_path_does_not_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert network.ip("-Version").startswith("ip utility")


def test_a_machine_without_ip_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name, path: None)
    with pytest.raises(DevclusterError, match="install iproute2"):
        network.ip("link", "show")
