"""A hub, a site and an evaluator as helm renders them, on an API server of their own: their policy is cluster-wide."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import yaml

from concordat_devcluster.control_plane import ControlPlane
from concordat_devcluster.tools import ensure_tools

ROOT = Path(__file__).resolve().parents[3]
VALUES = ROOT / "tests" / "charts" / "values"
HUB, SITE, EVALUATOR, FOREIGN = "concordat", "site-a", "evaluator", "foreign"

RELEASES = [
    # namespace, chart, values, and what differs from them
    (HUB, "concordat-operator", "operator.yaml", {}),
    (SITE, "concordat-site", "site-trainer.yaml", {"operator": {"namespace": HUB}}),
    (EVALUATOR, "concordat-site", "site-evaluator.yaml", {"operator": {"namespace": HUB}}),
]


class World:
    """The API server, and each party's way to it."""

    def __init__(self, control_plane: ControlPlane) -> None:
        self.control_plane = control_plane

    def kubeconfig(self, namespace: str, account: str) -> Path:
        """Credentials with exactly the rights of a ServiceAccount."""
        groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}")
        return self.control_plane.kubeconfig_for(f"system:serviceaccount:{namespace}:{account}", *groups)

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """As administrator; must succeed."""
        return self.control_plane.kubectl(*arguments, stdin=stdin)

    def attempt(self, kubeconfig: Path, *arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        """As somebody; may fail."""
        return subprocess.run(
            [self.control_plane.tools / "kubectl", f"--kubeconfig={kubeconfig}", *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
        )

    def create(self, kubeconfig: Path, manifest: dict[str, Any]) -> str:
        """Try to create an object, without keeping it: "" or why it is refused."""
        done = self.attempt(kubeconfig, "create", "--dry-run=server", "-f", "-", stdin=json.dumps(manifest))
        return done.stderr if done.returncode else ""

    def rights(self, kubeconfig: Path, namespace: str) -> set[str]:
        """All that somebody may do in a namespace, as "verb group/resource" with "=name" where limited to names."""
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectRulesReview",
            "spec": {"namespace": namespace},
        }
        path = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews"
        done = self.attempt(kubeconfig, "create", f"--raw={path}", "-f", "-", stdin=json.dumps(review))
        status = json.loads(done.stdout)["status"]
        assert not status["incomplete"], status
        return {
            f"{verb} {group}/{resource}" + (f"={name}" if name else "")
            for rule in status["resourceRules"]
            for verb in rule["verbs"]
            for group in rule["apiGroups"]
            for resource in rule["resources"]
            for name in rule.get("resourceNames") or [""]
        }


def manifests(namespace: str, chart: str, values: str, changes: dict[str, Any], folder: Path) -> str:
    """What helm renders; everything of it the API server must take."""
    file = folder / f"{namespace}.json"
    file.write_text(json.dumps({**yaml.safe_load((VALUES / values).read_text()), **changes}))
    helm, where = str(ensure_tools() / "helm"), str(ROOT / "charts" / chart)
    command = [helm, "template", "release", where, "--namespace", namespace, "--values", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
