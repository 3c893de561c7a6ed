"""The trainer's proof that it has no network: every way out is found, and what cannot be read counts as one."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from pathlib import Path

import pytest

from concordat_learning.errors import NotIsolated
from concordat_learning.isolation import verify

HEAD = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"
V4_DEFAULT = "eth0\t00000000\t0100A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"
V4_SUBNET = "eth0\t0000A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n"
V4_REJECT = "*\t00000000\t00000000\t0200\t0\t0\t0\t00000000\t0\t0\t0\n"
V4_LOOPBACK = "lo\t0000007F\t00000000\t0001\t0\t0\t0\t000000FF\t0\t0\t0\n"
ZERO, LOCAL, LINK = "0" * 32, "0" * 31 + "1", "fe80" + "0" * 28


def v6(destination: str, prefix: str, gateway: str, flags: str, interface: str) -> str:
    return f"{destination} {prefix} {ZERO} 00 {gateway} 00000400 00000001 00000000 {flags} {interface:>8}\n"


V6_LOOPBACK = v6(LOCAL, "80", ZERO, "00000001", "lo")
V6_REJECT = v6(ZERO, "00", ZERO, "00200200", "lo")
V6_OWN = v6("fd00" + "0" * 27 + "2", "80", ZERO, "80200001", "eth0")
V6_LINK = v6(LINK, "40", ZERO, "00000001", "eth0")
V6_DEFAULT = v6(ZERO, "00", "fd00" + "0" * 27 + "1", "00000003", "eth0")
V6_MULTICAST = v6("ff00" + "0" * 28, "08", ZERO, "00000001", "eth0")


class Network:
    """Answers connection attempts, and remembers them."""

    def __init__(self, **answers: int) -> None:
        self.answers, self.tried = answers, [("", 0)][:0]

    def __call__(self, address: str, port: int) -> int:
        self.tried.append((address, port))
        return self.answers.get("v6" if ":" in address else "v4", errno.ENETUNREACH)


def look(
    folder: Path,
    route: str = "",
    ipv6: str | None = None,
    environ: Mapping[str, str] | None = None,
    network: Network | None = None,
) -> None:
    (folder / "route").write_text(HEAD + route)
    if ipv6 is not None:
        (folder / "ipv6_route").write_text(ipv6)
    verify(environ or {}, folder, network or Network())


@pytest.mark.parametrize(
    ("route", "ipv6"),
    [
        ("", None),
        ("", ""),
        (V4_LOOPBACK, V6_LOOPBACK),
        (V4_REJECT, V6_LOOPBACK + V6_REJECT),
        ("", V6_OWN),
    ],
    ids=["no IPv6 in the kernel", "nothing", "loopback", "rejecting routes", "the pod's own address"],
)
def test_isolated(tmp_path: Path, route: str, ipv6: str | None) -> None:
    look(tmp_path, route, ipv6)


@pytest.mark.parametrize("failure", [errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT])
def test_these_failures_prove_that_no_packet_left(tmp_path: Path, failure: int) -> None:
    look(tmp_path, network=Network(v4=failure, v6=failure))


@pytest.mark.parametrize(
    ("route", "ipv6", "says"),
    [
        (V4_DEFAULT, None, r"route 0\.0\.0\.0/0 via 192\.168\.0\.1 on eth0"),
        (V4_LOOPBACK + V4_SUBNET, None, r"route 192\.168\.0\.0/24 on eth0"),
        ("garbage\n", None, "unreadable route 'garbage'"),
        ("eth0\tx\t0\t0001\t0\t0\t0\t0\t0\t0\t0\n", None, "unreadable route"),
        ("", V6_LOOPBACK + V6_DEFAULT, "route ::/0 via fd00::1 on eth0"),
        ("", V6_LINK, "route fe80::/64 on eth0"),
        ("", V6_MULTICAST, "route ff00::/8 on eth0"),
        ("", "garbage\n", "unreadable route 'garbage'"),
    ],
)
def test_a_route_is_a_network(tmp_path: Path, route: str, ipv6: str | None, says: str) -> None:
    with pytest.raises(NotIsolated, match=says) as found:
        look(tmp_path, route, ipv6)
    assert found.value.code == 71
    assert "set the operator's runtime class" in str(found.value)


@pytest.mark.parametrize("outcome", [0, errno.EINPROGRESS, errno.ECONNREFUSED, errno.ETIMEDOUT, errno.EPERM])
@pytest.mark.parametrize("family", ["v4", "v6"])
def test_a_connection_that_is_tried_is_a_network(tmp_path: Path, family: str, outcome: int) -> None:
    """Also where no table shows a route, as with policy routing."""
    with pytest.raises(NotIsolated, match="does not fail at once"):
        look(tmp_path, network=Network(**{family: outcome}))


def test_the_api_server_is_tried_first(tmp_path: Path) -> None:
    network = Network()
    look(
        tmp_path,
        environ={"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "6443"},
        network=network,
    )
    assert network.tried[0] == ("10.96.0.1", 6443)
    assert len(network.tried) == 3


def test_an_address_that_cannot_be_tried_proves_nothing(tmp_path: Path) -> None:
    with pytest.raises(NotIsolated, match="KUBERNETES_SERVICE_HOST='kubernetes' and"):
        look(tmp_path, environ={"KUBERNETES_SERVICE_HOST": "kubernetes"})


def test_without_a_routing_table_there_is_no_proof(tmp_path: Path) -> None:
    with pytest.raises(NotIsolated, match="route cannot be read"):
        verify({}, tmp_path / "none", Network())
    (tmp_path / "route").write_text(HEAD)
    (tmp_path / "ipv6_route").mkdir()
    with pytest.raises(NotIsolated, match="ipv6_route cannot be read"):
        verify({}, tmp_path, Network())


def test_all_ways_out_are_named(tmp_path: Path) -> None:
    with pytest.raises(NotIsolated) as found:
        look(tmp_path, V4_SUBNET, V6_LINK, network=Network(v4=0))
    assert str(found.value).count(";") == 2
