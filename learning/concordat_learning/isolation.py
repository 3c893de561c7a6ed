"""Proof, from inside, that this process has no network. Whatever cannot be read or understood counts as a network."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from concordat_learning.errors import NotIsolated

Connect = Callable[[str, int], int]
"""Starts a TCP connection to address and port without waiting; returns the errno (0: connected)."""

# linux/route.h and linux/ipv6_route.h
_REJECT = 0x0200
_LOCAL = 0x8000_0000
_ANYCAST = 0x0010_0000

# Addresses for documentation (RFC 5737, RFC 3849): without a route they fail like any other, and with one nobody is
# bothered.
_OUTSIDE = (("192.0.2.1", 443), ("2001:db8::1", 443))
_NO_WAY_OUT = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})


def verify(
    environ: Mapping[str, str] = os.environ, proc: Path = Path("/proc/net"), connect: Connect | None = None
) -> None:
    """Return if no packet can leave; raise NotIsolated with every way out found.

    Two independent proofs are demanded: no route but those of the loopback interface, and connections to the API
    server (KUBERNETES_SERVICE_HOST, if set) and to outside addresses that fail before a packet is sent. The second
    also covers what the main routing table does not show, such as policy routing.
    """
    found = [*ipv4_routes(_read(proc / "route")), *ipv6_routes(_read(proc / "ipv6_route", absent=""))]
    found += reachable(environ, connect or _connect)
    if found:
        raise NotIsolated(
            f"this container has a network: {'; '.join(found[:8])}. Training needs a pod without any: "
            "set the operator's runtime class to one whose pods get no routes and no IPv6 link-local address"
        )


def ipv4_routes(table: str) -> Iterator[str]:
    """In words, the usable routes of /proc/net/route that leave the loopback interface."""
    for line in table.splitlines()[1:]:
        try:
            interface, destination, gateway, flags, _, _, _, mask = line.split()[:8]
            if interface == "lo" or int(flags, 16) & _REJECT:
                continue
            network = f"{_ipv4(destination)}/{int(mask, 16).bit_count()}"
            via = f" via {_ipv4(gateway)}" if int(gateway, 16) else ""
        except ValueError:
            yield f"unreadable route {line!r}"
        else:
            yield f"route {network}{via} on {interface}"


def ipv6_routes(table: str) -> Iterator[str]:
    """In words, the usable routes of /proc/net/ipv6_route that leave the loopback interface.

    An empty table is a kernel without IPv6. Entries for the pod's own addresses lead nowhere else and do not count;
    link-local and multicast ones do: they reach the node.
    """
    for line in table.splitlines():
        try:
            destination, prefix, _, _, gateway, _, _, _, flags, interface = line.split()
            if interface == "lo" or int(flags, 16) & (_REJECT | _LOCAL | _ANYCAST):
                continue
            network = f"{_ipv6(destination)}/{int(prefix, 16)}"
            via = f" via {_ipv6(gateway)}" if int(gateway, 16) else ""
        except ValueError:
            yield f"unreadable route {line!r}"
        else:
            yield f"route {network}{via} on {interface}"


def reachable(environ: Mapping[str, str], connect: Connect) -> Iterator[str]:
    """In words, the connection attempts that did not fail at once for want of a route."""
    targets = list(_OUTSIDE)
    if host := environ.get("KUBERNETES_SERVICE_HOST"):
        port = environ.get("KUBERNETES_SERVICE_PORT") or "443"
        try:
            targets.insert(0, (str(ipaddress.ip_address(host)), int(port)))
        except ValueError:
            yield f"KUBERNETES_SERVICE_HOST={host!r} and KUBERNETES_SERVICE_PORT={port!r} are no address to try"
    for address, port_number in targets:
        result = connect(address, port_number)
        if result not in _NO_WAY_OUT:
            outcome = os.strerror(result) if result else "connected"
            yield f"a connection to {address} port {port_number} does not fail at once ({outcome})"


def _connect(address: str, port: int) -> int:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as attempt:
            attempt.setblocking(False)
            return attempt.connect_ex((address, port))
    except OSError as error:
        return error.errno or errno.EIO


def _read(path: Path, absent: str | None = None) -> str:
    try:
        return path.read_text()
    except FileNotFoundError as error:
        if absent is not None:
            return absent
        raise NotIsolated(f"{path} cannot be read ({error.strerror}): no proof that there is no network") from None
    except OSError as error:
        raise NotIsolated(f"{path} cannot be read ({error.strerror}): no proof that there is no network") from None


def _ipv4(text: str) -> str:
    # The kernel prints the word in the machine's byte order.
    return str(ipaddress.IPv4Address(int(text, 16).to_bytes(4, sys.byteorder)))


def _ipv6(text: str) -> str:
    return str(ipaddress.IPv6Address(int(text, 16)))
