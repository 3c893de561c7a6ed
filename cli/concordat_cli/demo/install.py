"""Install the hub, the evaluator and the sites, as their operators would: with helm, one release each."""

from __future__ import annotations

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from concordat.api import KINDS, ConditionType, Release, ReleaseChannel, Role, Site, is_true
from concordat.protocol.locations import TRUST_CONFIGMAP, TRUST_FILE
from concordat_cli.demo.roster import CANARY, EVALUATOR, HOSTILE, HUB, SITES
from concordat_cli.enrolment import manifest, membership, request
from concordat_cli.errors import UserError
from concordat_cli.kube import PATIENCE_SECONDS, Kube, documents
from concordat_cli.progress import Steps

ROOT = Path(__file__).resolve().parents[3]
EXAMPLES = ROOT / "examples" / "demo"
CHARTS = ROOT / "charts"
_DATA = "metadata.name=demo-data"
_TIMEOUT = f"--timeout={PATIENCE_SECONDS:.0f}s"


def check_checkout() -> None:
    """Raise UserError unless this is a source checkout: the demo installs its charts and examples."""
    for folder in (EXAMPLES, CHARTS):
        if not folder.is_dir():
            raise UserError(f"{folder} does not exist: run the demo from a checkout of the repository")


def _image(ref: str) -> dict[str, str]:
    repository, digest = ref.split("@")
    return {"repository": repository, "digest": digest}


def namespace(name: str, labels: Mapping[str, str]) -> dict[str, Any]:
    """Create a namespace under the `restricted` Pod Security level."""
    level = {f"pod-security.kubernetes.io/{m}": "restricted" for m in ("enforce", "warn", "audit")}
    return {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": name, "labels": {**level, **labels}},
    }


def install_hub(kube: Kube, images: Mapping[str, str], runtime_class: str) -> None:
    """Install the CRDs and the operator with its artifact registry."""
    kube.apply(namespace(HUB, {"app.kubernetes.io/part-of": "concordat"}))
    kube.helm_install("concordat-crds", CHARTS / "concordat-crds", HUB, {})
    kube.wait("the API server to serve the custom resources", lambda: _crds_established(kube))
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
    return len(found) == len(KINDS) and all("Established" in _true_conditions(crd) for crd in found)


def put_data(kube: Kube, image: str, seed: int) -> None:
    """Put each site's own data onto its own volume, the hub's for the canary check; none leaves its namespace."""
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
    """Wait until everybody's data is on its volume. Raises UserError when the Job of one of them has failed."""

    def put() -> bool:
        jobs = json.loads(kube.run("kubectl", "get", "jobs", "-A", "--field-selector", _DATA, "-o", "json"))["items"]
        ended = {(job["metadata"]["namespace"], state) for job in jobs for state in _true_conditions(job)}
        for namespace, state in sorted(ended):
            if state == "Failed":
                look = kube.hint(f"kubectl logs -n {namespace} job/demo-data")
                raise UserError(f"the Job that puts the data of {namespace} on its volume failed; look with: {look}")
        return {namespace for namespace, state in ended if state == "Complete"} >= {*SITES, EVALUATOR, HUB}

    kube.wait("everybody's data to be on its volume", put)


def _true_conditions(found: Mapping[str, Any]) -> set[str]:
    conditions = (found.get("status") or {}).get("conditions") or []
    return {c["type"] for c in conditions if c["status"] == "True"}


def _trust(kube: Kube) -> dict[str, Any] | None:
    data = kube.configmap(HUB, TRUST_CONFIGMAP)
    return json.loads(data[TRUST_FILE]) if data and TRUST_FILE in data else None


def wait_for_registry(kube: Kube) -> None:
    """Wait until the hub's artifact registry answers."""

    def ready() -> bool:
        found = json.loads(kube.run("kubectl", "get", "-n", HUB, "statefulset/concordat-registry", "-o", "json"))
        return bool(found.get("status", {}).get("readyReplicas"))

    kube.wait("the artifact registry to be ready", ready)


def wait_for_trust(kube: Kube, evaluator: bool) -> dict[str, Any]:
    """Return the hub's public keys, with the evaluator's once it is accepted: what every site pins."""

    def ready() -> Any:
        trust = _trust(kube)
        return trust if trust and (trust.get("evaluators") or not evaluator) else None

    what = "the evaluator to be accepted" if evaluator else "the operator to publish its keys"
    found: dict[str, Any] = kube.wait(what, ready)
    return found


def site_values(name: str, images: Mapping[str, str], trust: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of one site's own release. The hostile one runs an agent of its own making.

    All of them let this project's learning image train on their data, and measure with it.
    """
    (values,) = documents(EXAMPLES / "sites" / f"{name}.yaml")
    policy = values.setdefault("policy", {})
    policy.setdefault("consent", {})["allowedImages"] = [images["learning"]]
    policy.setdefault("judging", {})["image"] = images["learning"]
    agent = images["hostile" if name == HOSTILE else "agent"]
    return {**values, **{"image": _image(agent), "operator": {"namespace": HUB}, "trust": dict(trust)}}


def install_site(kube: Kube, name: str, images: Mapping[str, str], trust: Mapping[str, Any]) -> None:
    """Install one site's own release, with its own values."""
    kube.helm_install("concordat-site", CHARTS / "concordat-site", name, site_values(name, images, trust))


def install_sites(kube: Kube, images: Mapping[str, str], trust: Mapping[str, Any]) -> None:
    """Install the five sites, at once."""

    def one(name: str) -> None:
        install_site(kube, name, images, trust)

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(one, SITES))


def accept_members(kube: Kube, *names: str) -> None:
    """Accept each of these sites once its agent shows its key, as the hub's people do: `concordat site accept`."""
    accepted: set[str] = set()

    def all_accepted() -> bool:
        for site in kube.list(Site):
            name = site.metadata.name
            if name in names and name not in accepted and site.status.agent is not None:
                now, role = datetime.now(UTC), Role.EVALUATOR if name == EVALUATOR else Role.TRAINER
                kube.apply(manifest(membership(request(site), HUB, None, now, role=role)))
                accepted.add(name)
        return accepted >= set(names)

    kube.wait(f"the agents of {', '.join(names)} to show their keys", all_accepted)


def wait_for_sites(kube: Kube, steps: Steps) -> None:
    """Wait until every site and the evaluator are Ready."""

    def ready() -> bool:
        return sum(is_true(s.status.conditions, ConditionType.READY) for s in kube.list(Site)) == len(SITES) + 1

    kube.wait("all sites to be Ready", ready)
    steps.note(kube.run("kubectl", "get", "fsite", "-A").rstrip())


def publish(kube: Kube, genesis: Mapping[str, Any]) -> None:
    """Publish the release that starts the federation, and the channel the sites subscribe to."""
    kube.apply(genesis, *documents(EXAMPLES / "channel.yaml"))

    def current() -> bool:
        channel = kube.get(ReleaseChannel, HUB, "stable")
        return bool(channel and channel.status.release)

    def why() -> str:
        release = kube.get(Release, HUB, str(genesis["metadata"]["name"]))
        conditions = release.status.conditions if release else []
        return "; ".join(c.message for c in conditions if not c.is_true)

    try:
        kube.wait("the channel to point to the first release", current)
    except UserError as error:
        raise UserError(f"{error}; {why()}") from None


def remove(kube: Kube) -> None:
    """Remove everything the demo installed, rounds first: their finalizer needs the operator."""
    kube.run("kubectl", "delete", "federationrounds", "-n", HUB, "--all", "--ignore-not-found", _TIMEOUT)
    kube.run("helm", "uninstall", "concordat", "-n", HUB, "--ignore-not-found", "--wait")
    kube.run("kubectl", "delete", "namespace", "--ignore-not-found", _TIMEOUT, HUB, EVALUATOR, *SITES)
