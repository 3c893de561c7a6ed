"""Addresses and the link of each cluster. All come from 198.18.0.0/15, which is set aside for test networks."""

from __future__ import annotations

import ipaddress
import json
import subprocess
from dataclasses import dataclass

from concordat_devcluster.errors import DevclusterError
from concordat_devcluster.processes import find_program

SLOTS = 128
_POOL = ipaddress.IPv4Network("198.18.0.0/15")
_SLOT_SIZE = 4 * 256


@dataclass(frozen=True)
class Network:
    """The four /24 networks and the two link names of the cluster in a slot (0 … 127)."""

    slot: int

    def _net(self, index: int) -> ipaddress.IPv4Network:
        return ipaddress.IPv4Network((int(_POOL[0]) + self.slot * _SLOT_SIZE + index * 256, 24))

    @property
    def link(self) -> ipaddress.IPv4Network:
        """Network of the veth pair."""
        return self._net(0)

    @property
    def pods(self) -> ipaddress.IPv4Network:
        """Addresses of pods."""
        return self._net(1)

    @property
    def isolated(self) -> ipaddress.IPv4Network:
        """Addresses of pods without a network: kubelet wants one, nothing routes it."""
        return self._net(2)

    @property
    def services(self) -> ipaddress.IPv4Network:
        """Addresses of Services."""
        return self._net(3)

    @property
    def host_address(self) -> str:
        """The host's end of the link."""
        return str(self.link[1])

    @property
    def node_address(self) -> str:
        """The node's end of the link; also its DNS server."""
        return str(self.link[2])

    @property
    def api_service_address(self) -> str:
        """Address of the Service `kubernetes.default`: the first of the range."""
        return str(self.services[1])

    @property
    def host_link(self) -> str:
        """Name of the link on the host."""
        return f"cdc{self.slot}h"

    @property
    def node_link(self) -> str:
        """Name of the link inside the node."""
        return f"cdc{self.slot}n"


def free_slot(taken: set[int]) -> int:
    """Return the lowest slot that is not taken and whose addresses no route of the host covers."""
    routed = [_network(route["dst"]) for route in _ip_json("-4", "route", "show", "table", "all")]
    for slot in range(SLOTS):
        network = Network(slot)
        span = [network.link, network.pods, network.isolated, network.services]
        if slot not in taken and not any(net.overlaps(route) for net in span for route in routed if route):
            return slot
    raise DevclusterError(f"all {SLOTS} address slots in 198.18.0.0/15 are used: remove clusters with reset")


def connect(network: Network, pid: int) -> None:
    """Join the network namespace of `pid` to the host, with routes to its pods and Services."""
    node = network.node_address
    ip("link", "add", network.host_link, "type", "veth", "peer", "name", network.node_link, "netns", str(pid))
    ip("address", "add", f"{network.host_address}/{network.link.prefixlen}", "dev", network.host_link)
    ip("link", "set", network.host_link, "up")
    for destination in (network.pods, network.services):
        ip("route", "add", str(destination), "via", node, "dev", network.host_link, "onlink")


def disconnect(network: Network) -> None:
    """Remove the host's end, and with it the peer and the routes; nothing happens when there is none."""
    if is_connected(network):
        ip("link", "delete", network.host_link)


def is_connected(network: Network) -> bool:
    """Return whether the host's end exists."""
    return any(link["ifname"] == network.host_link for link in _ip_json("link", "show"))


def configure_node(network: Network) -> None:
    """Set up the node's side of the link; runs inside its network namespace."""
    ip("link", "set", "lo", "up")
    ip("address", "add", f"{network.node_address}/{network.link.prefixlen}", "dev", network.node_link)
    ip("link", "set", network.node_link, "up")
    # The kernel wants a route before kube-proxy's rules translate the address of a Service.
    ip("route", "add", str(network.services), "dev", network.node_link)


def ip(*arguments: str) -> str:
    """Run ip(8); DevclusterError with its words when it fails."""
    program = find_program("ip")
    if program is None:
        raise DevclusterError("ip, which links the node to this machine, is not installed: install iproute2")
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise DevclusterError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout


def _ip_json(*arguments: str) -> list[dict[str, str]]:
    answer: list[dict[str, str]] = json.loads(ip("-json", *arguments) or "[]")
    return answer


def _network(destination: str) -> ipaddress.IPv4Network | None:
    try:
        network = ipaddress.IPv4Network(destination)
    except ValueError:
        return None
    # Wider routes, like the default one or a VPN's 128.0.0.0/1, give way to the clusters' own.
    return network if network.prefixlen >= _POOL.prefixlen else None
