"""Install the hub, the evaluator and the sites, as their operators would: with helm, one release each."""

from __future__ import annotations

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import yaml

from concordat.api import KINDS, Release, ReleaseChannel, Site, is_true
from concordat_cli.errors import UserError
from concordat_cli.kube import Kube, documents
from concordat_cli.progress import Steps

HUB = "concordat"
EVALUATOR = "evaluator"
CANARY = "canary"
"""The claim with the hub's examples for the canary check, and the part of the demo's data on it."""
SITES = ("site-a", "site-b", "site-c", "site-d", "site-e")
HOSTILE = "site-d"
ROOT = Path(__file__).resolve().parents[3]
EXAMPLES = ROOT / "examples" / "demo"
CHARTS = ROOT / "charts"


def check_checkout() -> None:
    """The demo installs the charts and examples of a source checkout."""
    for folder in (EXAMPLES, CHARTS):
        if not folder.is_dir():
            raise UserError(f"{folder} does not exist: run the demo from a checkout of the repository")


def _image(ref: str) -> dict[str, str]:
    repository, digest = ref.split("@")
    return {"repository": repository, "digest": digest}


def namespace(name: str, labels: Mapping[str, str]) -> dict[str, Any]:
    """A namespace under the `restricted` Pod Security level."""
    level = {f"pod-security.kubernetes.io/{m}": "restricted" for m in ("enforce", "warn", "audit")}
    return {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": name, "labels": {**level, **labels}},
    }


def install_hub(kube: Kube, images: Mapping[str, str], runtime_class: str) -> None:
    """The CRDs and the operator with its artifact registry."""
    kube.apply(namespace(HUB, {"app.kubernetes.io/part-of": "concordat"}))
    kube.helm_install("concordat-crds", CHARTS / "concordat-crds", HUB, {})
    kube.wait("the API server to serve the custom resources", lambda: _crds_established(kube), 60)
    values = {
        "image": _image(images["operator"]),
        "learningImage": images["learning"],
        "runtimeClassName": runtime_class,
        "registry": {"image": images["registry"]},
    }
    kube.helm_install("concordat", CHARTS / "concordat-operator", HUB, values)


def _crds_established(kube: Kube) -> bool:
    # Not `kubectl wait`: it fails on a definition so new that it has no conditions yet.
    selector = "app.kubernetes.io/part-of=concordat"
    found = json.loads(kube.run("kubectl", "get", "crd", "-l", selector, "-o", "json"))["items"]
    conditions = [(crd.get("status") or {}).get("conditions") or [] for crd in found]
    ready = [any(c["type"] == "Established" and c["status"] == "True" for c in each) for each in conditions]
    return len(ready) == len(KINDS) and all(ready)


def put_data(kube: Kube, image: str, seed: int) -> None:
    """Each site's own data onto its own volume, and the hub's for the canary check; none ever leaves its namespace."""
    for name in (*SITES, EVALUATOR):
        kube.apply(namespace(name, {"concordat.dev/site": name}))
        _put(kube, {"NAMESPACE": name, "CLAIM": "data", "PART": name, "IMAGE": image, "SEED": str(seed)})
    _put(kube, {"NAMESPACE": HUB, "CLAIM": CANARY, "PART": CANARY, "IMAGE": image, "SEED": str(seed)})


def _put(kube: Kube, words: Mapping[str, str]) -> None:
    text = (EXAMPLES / "data.yaml").read_text()
    for name, value in words.items():
        text = text.replace(name, value)
    kube.apply(*yaml.safe_load_all(text))


def wait_for_data(kube: Kube) -> None:
    """Until everybody's data is on its volume."""
    for name in (*SITES, EVALUATOR, HUB):
        kube.run("kubectl", "wait", "-n", name, "--for=condition=Complete", "--timeout=300s", "job/demo-data")


def _trust(kube: Kube) -> dict[str, Any] | None:
    data = kube.configmap(HUB, "concordat-trust")
    return json.loads(data["trust.json"]) if data and "trust.json" in data else None


def wait_for_trust(kube: Kube, evaluator: bool) -> dict[str, Any]:
    """The hub's public keys, with the evaluator's once it is accepted: what every site pins."""

    def ready() -> Any:
        trust = _trust(kube)
        return trust if trust and (trust.get("evaluators") or not evaluator) else None

    what = "the evaluator to be accepted" if evaluator else "the operator to publish its keys"
    found: dict[str, Any] = kube.wait(what, ready, 180)
    return found


def install_site(kube: Kube, name: str, image: str, trust: Mapping[str, Any]) -> None:
    """One site's own release, with its own values."""
    (values,) = documents(EXAMPLES / "sites" / f"{name}.yaml")
    values |= {
        "image": _image(image),
        "registryUrl": f"http://concordat-registry.{HUB}.svc:5000",
        "operator": {"namespace": HUB},
        "trust": dict(trust),
    }
    kube.helm_install("concordat-site", CHARTS / "concordat-site", name, values)


def install_sites(kube: Kube, images: Mapping[str, str], trust: Mapping[str, Any]) -> None:
    """The five sites, at once; the hostile one runs an agent of its own making."""

    def one(name: str) -> None:
        install_site(kube, name, images["hostile" if name == HOSTILE else "site"], trust)

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(one, SITES))


def wait_for_sites(kube: Kube, steps: Steps) -> None:
    """Until every site and the evaluator are Ready."""

    def ready() -> bool:
        return sum(is_true(s.status.conditions, "Ready") for s in kube.list(Site)) == len(SITES) + 1

    kube.wait("all sites to be Ready", ready, 240)
    steps.note(kube.run("kubectl", "get", "fsite", "-A").rstrip())


def publish(kube: Kube, genesis: Mapping[str, Any]) -> None:
    """The release that starts the federation, and the channel the sites subscribe to."""
    kube.apply(genesis, *documents(EXAMPLES / "channel.yaml"))

    def current() -> bool:
        channel = kube.get(ReleaseChannel, HUB, "stable")
        return bool(channel and channel.status.release)

    def why() -> str:
        release = kube.get(Release, HUB, str(genesis["metadata"]["name"]))
        conditions = release.status.conditions if release else []
        return "; ".join(c.message for c in conditions if not c.is_true)

    try:
        kube.wait("the channel to point to the first release", current, 120)
    except UserError as error:
        raise UserError(f"{error}; {why()}") from None


def remove(kube: Kube) -> None:
    """Everything the demo installed, rounds first: their finalizer needs the operator."""
    kube.run("kubectl", "delete", "federationrounds", "-n", HUB, "--all", "--ignore-not-found", "--timeout=120s")
    kube.run("helm", "uninstall", "concordat", "-n", HUB, "--ignore-not-found", "--wait")
    kube.run("kubectl", "delete", "namespace", "--ignore-not-found", "--timeout=300s", HUB, EVALUATOR, *SITES)
