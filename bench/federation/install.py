"""The hub and its sites installed: what the charts render, without what a node would run."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import yaml

from bench.federation.operator import HUB, IMAGE
from concordat_devcluster.control_plane import ControlPlane
from concordat_devcluster.processes import wait_for
from concordat_devcluster.tools import ensure_tools

CHARTS = Path(__file__).resolve().parents[2] / "charts"
SITE = "site-of-the-bench"
_RUN_BY_NODES = {"Deployment", "StatefulSet", "Service", "NetworkPolicy", "PersistentVolumeClaim"}
_IMAGE = {"repository": "registry.example/concordat/operator", "digest": "sha256:" + "1" * 64}
_POLICY_SECONDS = 60

Manifests = list[dict[str, Any]]


def render(chart: str, namespace: str, values: dict[str, Any], folder: Path) -> Manifests:
    """Return the objects of a chart that need no node."""
    file = folder / f"{chart}.json"
    file.write_text(json.dumps(values))
    helm, where = str(ensure_tools() / "helm"), str(CHARTS / chart)
    command = [helm, "template", chart, where, "--namespace", namespace, "--values", str(file)]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [obj for obj in yaml.safe_load_all(text) if obj and obj["kind"] not in _RUN_BY_NODES]


def install_hub(control_plane: ControlPlane) -> None:
    """Install CRDs and the operator's chart; returns once its admission policy is enforced."""
    control_plane.apply_crds()
    control_plane.kubectl("create", "namespace", HUB)
    values = {"image": _IMAGE, "learningImage": IMAGE, "runtimeClassName": "", "registry": {"image": IMAGE}}
    rendered = render("concordat-operator", HUB, values, control_plane.folder)
    text = "---\n".join(json.dumps(obj) + "\n" for obj in rendered)
    control_plane.kubectl("apply", "--server-side", "-f", "-", stdin=text)
    operator = control_plane.kubeconfig_for(operator_user(), "system:serviceaccounts")
    probe = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "probe", "namespace": HUB}}
    pod = {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}
    text = json.dumps(probe | {"spec": {"template": {"spec": pod}}})
    command = [
        str(control_plane.tools / "kubectl"),
        f"--kubeconfig={operator}",
        "create",
        "--dry-run=server",
        "-f",
        "-",
    ]

    def enforced() -> bool:
        done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
        return "ValidatingAdmissionPolicy" in done.stderr

    log = control_plane.folder / "kube-apiserver.log"
    wait_for("the admission policy", enforced, _POLICY_SECONDS, lambda: True, log)


def operator_user() -> str:
    """Return the operator's name at the API server."""
    return f"system:serviceaccount:{HUB}:concordat-operator"


def site_rights(trust: dict[str, Any], folder: Path) -> Manifests:
    """Return what a site's chart grants, and its ServiceAccounts, for the namespace SITE."""
    values = {
        "role": "Trainer",
        "federations": [{"name": "digits", "dataClaim": "data"}],
        "channel": "stable",
        "image": _IMAGE,
        "operator": {"namespace": HUB},
        "trust": trust,
        "policy": {"consent": {"allowedImages": [IMAGE]}, "judging": {"image": IMAGE, "minQualityPpm": 1}},
    }
    wanted = {"Role", "RoleBinding", "ServiceAccount"}
    return [obj for obj in render("concordat-site", SITE, values, folder) if obj["kind"] in wanted]


def of_site(rights: Manifests, name: str) -> Manifests:
    """Return the same for another site."""
    found: Manifests = json.loads(json.dumps(rights).replace(SITE, name))
    return found
