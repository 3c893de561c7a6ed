"""What the node's programs are told."""

from __future__ import annotations

import ipaddress
import json
import tomllib
from pathlib import Path

import yaml

from concordat_devcluster import components, node_config
from concordat_devcluster.layout import RUNTIME_CLASS, Layout
from concordat_devcluster.manifests import manifests
from concordat_devcluster.network import SLOTS, Network
from concordat_devcluster.paths import MODULES

LAYOUT = Layout(Path("/cache/clusters/demo"), Path("/tools"), Network(3))


def test_toml_is_what_a_parser_reads_back() -> None:
    table = {"version": 3, "on": True, "list": ["a", 'b"c'], "x.y": {"deep": {"k": "v"}, "n": 1}, "empty": {"z": {}}}
    read = tomllib.loads(node_config.toml(table))
    assert read == {k: v for k, v in table.items() if k != "empty"}


def test_containerd_pulls_from_the_node_and_has_a_runtime_without_network() -> None:
    config = tomllib.loads(node_config.containerd(LAYOUT, "registry.concordat.internal/pause@sha256:00"))
    plugins = config["plugins"]
    images = plugins["io.containerd.cri.v1.images"]
    assert images["pinned_images"]["sandbox"] == "registry.concordat.internal/pause@sha256:00"
    assert images["discard_unpacked_layers"] is True
    registries = Path(images["registry"]["config_path"])
    hosts = registries.relative_to(LAYOUT.config) / "registry.concordat.internal/hosts.toml"
    assert list(tomllib.loads(node_config.render(LAYOUT)[str(hosts)])["host"]) == ["http://127.0.0.1:5005"]
    runtimes = plugins["io.containerd.cri.v1.runtime"]["containerd"]["runtimes"]
    handler = next(m["handler"] for m in manifests() if m["metadata"]["name"] == RUNTIME_CLASS)
    folder = Path(runtimes[handler]["cni_conf_dir"]).relative_to(LAYOUT.config)
    bridge, tuning = json.loads(node_config.render(LAYOUT)[f"{folder}/10-isolated.conflist"])["plugins"]
    assert bridge["isGateway"] is False
    assert bridge["portIsolation"] is True
    assert "routes" not in bridge["ipam"]
    # A single host's address makes no route, and there is no IPv6 to make one.
    assert [each["address"].endswith("/32") for each in bridge["ipam"]["addresses"]] == [True]
    assert tuning["sysctl"] == {"net.ipv6.conf.all.disable_ipv6": "1"}


def test_kubelet_asks_the_api_who_may_do_what_and_counts_the_disk() -> None:
    kubelet = yaml.safe_load(node_config.render(LAYOUT)["kubelet.yaml"])
    assert kubelet["authentication"]["anonymous"] == {"enabled": False}
    assert kubelet["authorization"] == {"mode": "Webhook"}
    assert kubelet["localStorageCapacityIsolation"] is True
    assert kubelet["podPidsLimit"] == 1024
    assert kubelet["cgroupRoot"] == "/concordat-3/pods"
    assert kubelet["clusterDNS"] == [LAYOUT.network.node_address]


def test_the_image_registry_listens_on_loopback_only() -> None:
    assert yaml.safe_load(node_config.render(LAYOUT)["registry.yaml"])["http"]["addr"].startswith("127.0.0.1:")


def test_every_file_that_a_program_is_given_is_written(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "demo", Path("/tools"), Network(0))
    written = {str(layout.config / name) for name in node_config.render(layout)}
    written.add(str(layout.containerd_config))
    for program in components.components(layout):
        for word in program.command:
            value = word.rpartition("=")[2]
            if value.startswith(str(layout.config)) and not value.endswith(".kubeconfig"):
                assert value in written, program.name


def test_clusters_do_not_share_addresses() -> None:
    seen: list[ipaddress.IPv4Network] = []
    for slot in (0, 1, SLOTS - 1):
        network = Network(slot)
        for part in (network.link, network.pods, network.isolated, network.services):
            assert not any(part.overlaps(other) for other in seen)
            assert part.subnet_of(ipaddress.IPv4Network("198.18.0.0/15"))
            seen.append(part)


def test_claims_get_volumes_unless_they_say_otherwise() -> None:
    storage = next(m for m in manifests() if m["kind"] == "StorageClass")
    assert storage["metadata"]["annotations"]["storageclass.kubernetes.io/is-default-class"] == "true"
    assert f'"{storage["provisioner"]}"' in (MODULES / "programs/storage/main.go").read_text()
