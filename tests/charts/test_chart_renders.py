"""What the charts make of realistic values.

The golden files in golden/ show every change of a template as a change of manifests. After an intended one:
`UPDATE_GOLDEN=1 .venv/bin/pytest tests/charts`, then read the diff before committing it.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from concordat.api import Site
from concordat.lineage import Trust
from concordat_agent.policy import SitePolicy
from concordat_agent.settings import Settings
from concordat_cli.demo.install import site_values
from tests.support.helm import Helm

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = Path(__file__).parent / "golden"
PROFILES = sorted(path.stem for path in (Path(__file__).parent / "values").glob("*.yaml"))
WITH_PODS = [profile for profile in PROFILES if profile != "crds"]
SITES = sorted(path.stem for path in (ROOT / "examples/demo/sites").glob("*.yaml"))

Objects = list[dict[str, Any]]
Render = Callable[[str], Objects]
Locate = Callable[[str], tuple[str, str]]


def find(objects: Objects, kind: str, name: str) -> dict[str, Any]:
    (found,) = [o for o in objects if (o["kind"], o["metadata"]["name"]) == (kind, name)]
    return found


def pod_templates(objects: Objects) -> Iterator[tuple[str, dict[str, Any]]]:
    for item in objects:
        if "template" in (item.get("spec") or {}):
            yield f"{item['kind']}/{item['metadata']['name']}", item["spec"]["template"]["spec"]


def containers(pod: dict[str, Any]) -> list[dict[str, Any]]:
    return [*pod.get("initContainers", []), *pod["containers"]]


@pytest.mark.parametrize("profile", PROFILES)
def test_lint_finds_nothing(helm: Helm, values: Callable[[str], Any], locate: Locate, profile: str) -> None:
    chart, namespace = locate(profile)
    done = helm.run(
        *("lint", "--strict", ROOT / "charts" / chart, "--namespace", namespace, "--values"),
        helm.values(values(profile)),
    )
    assert done.returncode == 0, done.stdout
    assert [line for line in done.stdout.splitlines() if line.startswith("[")] == [
        "[INFO] Chart.yaml: icon is recommended"
    ]


@pytest.mark.parametrize("profile", WITH_PODS)
def test_golden(helm: Helm, values: Callable[[str], Any], locate: Locate, profile: str) -> None:
    chart, namespace = locate(profile)
    rendered = helm.render(chart, values(profile), namespace)
    path = GOLDEN / f"{profile}.yaml"
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(rendered)
    assert rendered == path.read_text(), "see the docstring of this file"


def test_every_golden_file_has_its_profile() -> None:
    assert sorted(path.stem for path in GOLDEN.iterdir()) == WITH_PODS


def test_the_crds_chart_is_crds(objects: Render) -> None:
    """crds/ itself is the golden file of this chart: generated, committed, and kept when the chart is uninstalled."""
    wanted = [yaml.safe_load(path.read_text()) for path in sorted((ROOT / "crds").glob("*.yaml"))]
    for crd in wanted:
        crd["metadata"]["annotations"] = {"helm.sh/resource-policy": "keep"}
    assert sorted(objects("crds"), key=lambda crd: str(crd["metadata"]["name"])) == wanted


@pytest.mark.parametrize("profile", PROFILES)
def test_every_object_is_valid(objects: Render, profile: str) -> None:
    for item in objects(profile):
        if item["apiVersion"].startswith("concordat.dev/"):
            crd = yaml.safe_load((ROOT / "crds" / f"concordat.dev_{item['kind'].lower()}s.yaml").read_text())
            (version,) = crd["spec"]["versions"]
            jsonschema.validate(item, version["schema"]["openAPIV3Schema"])
            # Knows no other fields, which the API server would drop.
            Site.model_validate(item)
        else:
            kubernetes_validate.validate(item, "1.34", strict=True)


@pytest.mark.parametrize("profile", PROFILES)
def test_objects_are_labelled_and_stay_in_their_namespace(objects: Render, locate: Locate, profile: str) -> None:
    cluster_wide = {
        "ClusterRole",
        "ClusterRoleBinding",
        "CustomResourceDefinition",
        "ValidatingAdmissionPolicy",
        "ValidatingAdmissionPolicyBinding",
    }
    for item in objects(profile):
        metadata = item["metadata"]
        assert metadata["labels"]["app.kubernetes.io/part-of"] == "concordat"
        expected = None if item["kind"] in cluster_wide else locate(profile)[1]
        assert metadata.get("namespace") == expected, metadata["name"]


def test_a_site_needs_no_right_beyond_its_namespace(objects: Render) -> None:
    for profile in ("site-trainer", "site-evaluator"):
        assert not {o["kind"] for o in objects(profile)} & {"ClusterRole", "ClusterRoleBinding", "Namespace"}


@pytest.mark.parametrize("profile", WITH_PODS)
def test_pods_pass_pod_security_restricted(objects: Render, profile: str) -> None:
    for name, pod in pod_templates(objects(profile)):
        context = pod["securityContext"]
        assert context["runAsNonRoot"] is True, name
        assert context["runAsUser"] > 0, name
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys(), name
        sources = {key for volume in pod["volumes"] for key in volume.keys() - {"name"}}
        assert sources <= {"configMap", "emptyDir", "persistentVolumeClaim", "projected", "secret"}, name
        for container in containers(pod):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, f"{name}/{container['name']}"
            assert not any("hostPort" in port for port in container.get("ports", [])), name


@pytest.mark.parametrize("profile", WITH_PODS)
def test_pods_have_digests_probes_and_resources(objects: Render, profile: str) -> None:
    names = []
    for name, pod in pod_templates(objects(profile)):
        names.append(name)
        assert pod["enableServiceLinks"] is False, name
        for container in containers(pod):
            assert re.fullmatch(r"[^@]+@sha256:[a-f0-9]{64}", container["image"]), name
            assert container["resources"]["requests"].keys() == {"cpu", "memory"}, name
            assert "memory" in container["resources"]["limits"], name
        for container in pod["containers"]:
            ports = {port["name"] for port in container["ports"]}
            for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                assert container[probe]["httpGet"]["port"] in ports, name
                assert container[probe]["timeoutSeconds"] >= 10, f"{name}: {probe} is for a quick node only"
            start = container["startupProbe"]
            assert start["periodSeconds"] * start["failureThreshold"] >= 600, name
    assert names, "no pods found"


@pytest.mark.parametrize("profile", PROFILES)
def test_no_tag_and_no_key_in_a_manifest(objects: Render, profile: str) -> None:
    text = yaml.safe_dump_all(objects(profile))
    assert ":latest" not in text
    assert "PRIVATE KEY" not in text
    # The programs make their own keys: what is rendered is the same each time, and Argo CD sees no drift.
    assert not [o["metadata"]["name"] for o in objects(profile) if o["kind"] == "Secret"]


def test_no_template_looks_into_the_cluster_or_draws_lots() -> None:
    for template in (ROOT / "charts").glob("*/templates/*"):
        actions = " ".join(re.findall(r"\{\{.*?\}\}", template.read_text(), re.DOTALL))
        assert not re.search(r"\b(lookup|rand\w+|gen[A-Z]\w+|now|uuidv4)\b", actions), template


@pytest.mark.parametrize("profile", PROFILES)
def test_no_wildcard_in_a_role(objects: Render, profile: str) -> None:
    for item in objects(profile):
        for rule in item.get("rules", []):
            assert "*" not in [*rule["apiGroups"], *rule["resources"], *rule["verbs"]], item["metadata"]["name"]


def test_the_programs_are_those_of_the_images(objects: Render) -> None:
    """The hostile image of the demo replaces concordat_agent/__main__.py, so that is what must run."""
    operator = find(objects("operator"), "Deployment", "concordat-operator")["spec"]["template"]["spec"]
    agent = find(objects("site-trainer"), "Deployment", "concordat-agent")["spec"]["template"]["spec"]
    gateway = find(objects("operator"), "StatefulSet", "concordat-registry")["spec"]["template"]["spec"]
    assert operator["containers"][0]["command"] == ["python", "-m", "concordat_operator.main"]
    assert gateway["containers"][0]["command"] == ["python", "-m", "concordat_gateway.main"]
    assert agent["containers"][0]["command"] == ["python", "-m", "concordat_agent"]
    operator_folder = ("operator/concordat_operator/main.py", "operator/concordat_gateway/main.py")
    for module in (*operator_folder, "site_agent/concordat_agent/__main__.py"):
        assert re.search(r"^(    )?main\(\)$", (ROOT / module).read_text(), re.MULTILINE), module


@pytest.mark.parametrize("profile", ["site-trainer", "site-evaluator"])
def test_the_agent_can_read_its_configuration(objects: Render, profile: str) -> None:
    data = find(objects(profile), "ConfigMap", "concordat-agent")["data"]
    policy = SitePolicy.from_json(data["policy.json"])
    assert policy.consent.max_steps == (500 if profile == "site-trainer" else 1000)
    assert (policy.consent.hours is not None) == (profile == "site-trainer")
    trust = Trust.from_json(data["trust.json"])
    assert len(trust.contract_keys) == len(trust.aggregation_keys) == 1
    assert set(trust.evaluators) == ({"evaluator"} if profile == "site-trainer" else set())
    (container,) = find(objects(profile), "Deployment", "concordat-agent")["spec"]["template"]["spec"]["containers"]
    literal = {e["name"]: e["value"] for e in container["env"] if "value" in e}
    settings = Settings.from_environment({**literal, "CONCORDAT_SITE": "x"})
    mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert {str(p.parent) for p in (settings.policy, settings.trust, settings.key, settings.history)} <= mounts
    assert str(settings.workspace) in mounts


@pytest.mark.parametrize(
    ("profile", "url", "port"),
    [
        ("site-trainer", "https://artifacts.example:8443", 8443),
        ("site-evaluator", "https://concordat-gateway.concordat.svc", 8443),
    ],
)
def test_the_agent_may_reach_the_gateway_it_uses(objects: Render, profile: str, url: str, port: int) -> None:
    (container,) = find(objects(profile), "Deployment", "concordat-agent")["spec"]["template"]["spec"]["containers"]
    assert {"name": "CONCORDAT_REGISTRY_URL", "value": url} in container["env"]
    (egress,) = find(objects(profile), "NetworkPolicy", "concordat-agent")["spec"]["egress"]
    assert {p["port"] for p in egress["ports"]} == {53, 443, 6443, port}


def test_a_certificate_that_is_brought_is_mounted(helm: Helm, values: Callable[[str], Any]) -> None:
    given = {**values("operator"), "gateway": {"tlsSecret": "by-cert-manager"}}
    rendered = [o for o in yaml.safe_load_all(helm.render("concordat-operator", given, "concordat")) if o]
    pod = find(rendered, "StatefulSet", "concordat-registry")["spec"]["template"]["spec"]
    gateway = pod["containers"][0]
    assert {"name": "CONCORDAT_TLS_FOLDER", "value": "/etc/concordat/tls"} in gateway["env"]
    assert {"name": "tls", "mountPath": "/etc/concordat/tls", "readOnly": True} in gateway["volumeMounts"]
    assert {"name": "tls", "secret": {"secretName": "by-cert-manager"}} in pod["volumes"]


def test_the_registry_listens_to_its_gateway_only(objects: Render) -> None:
    """Security finding F3: whoever reaches the pod reaches the gateway."""
    config = yaml.safe_load(find(objects("operator"), "ConfigMap", "concordat-registry")["data"]["config.yml"])
    assert config["http"]["addr"] == "127.0.0.1:5000"
    ports = [p for o in objects("operator") if o["kind"] == "Service" for p in o["spec"]["ports"]]
    assert ports == [{"name": "https", "port": 443, "targetPort": "https"}]


@pytest.mark.parametrize("site", SITES)
def test_the_demos_sites_render(helm: Helm, values: Callable[[str], Any], site: str) -> None:
    """With what `concordat demo` adds."""
    own = yaml.safe_load((ROOT / f"examples/demo/sites/{site}.yaml").read_text())
    images = {name: f"registry.example/{name}@sha256:{'a' * 64}" for name in ("agent", "hostile", "learning")}
    given = site_values(site, images, values("site-trainer")["trust"])
    rendered = [o for o in yaml.safe_load_all(helm.render("concordat-site", given, site)) if o]
    found = Site.model_validate(find(rendered, "Site", site))
    assert found.spec.role.value == own["role"]
    assert found.spec.channel == own.get("channel")


def notes(helm: Helm, folder: Path, chart: str, values: Any, namespace: str) -> str:
    """What helm says after installation. It renders notes only with a cluster, so here they become a ConfigMap."""
    copied = folder / chart
    shutil.copytree(ROOT / "charts" / chart, copied)
    text = (copied / "templates/NOTES.txt").read_text()
    (copied / "templates/NOTES.txt").unlink()
    (copied / "templates/_notes.tpl").write_text(f'{{{{- define "notes" -}}}}\n{text}\n{{{{- end }}}}\n')
    (copied / "templates/notes.yaml").write_text(
        'apiVersion: v1\nkind: ConfigMap\nmetadata: { name: notes }\ndata:\n  notes: {{ include "notes" . | quote }}\n'
    )
    rendered = [o for o in yaml.safe_load_all(helm.render(copied, values, namespace)) if o]
    return str(find(rendered, "ConfigMap", "notes")["data"]["notes"])


@pytest.mark.parametrize(
    ("profile", "says", "warnings"),
    [
        ("crds", "kubectl wait --for=condition=Established crd -l app.kubernetes.io/part-of=concordat", []),
        ("operator", "kubectl rollout status deployment/concordat-operator -n concordat", []),
        ("operator-external-registry", "the hub runs in namespace concordat", ["NOTE: learningImage is empty"]),
        (
            "operator-no-runtime-class",
            "the hub runs in namespace concordat",
            ["WARNING: runtimeClassName is empty", "NOTE: learningImage is empty"],
        ),
        ("site-trainer", "kubectl wait --for=condition=Ready site/trainer -n trainer --timeout=120s", []),
        ("site-evaluator", "evaluator takes part as Evaluator in digits.", []),
    ],
)
def test_notes_tell_what_is_next_and_what_is_unsafe(
    helm: Helm,
    values: Callable[[str], Any],
    locate: Locate,
    tmp_path: Path,
    profile: str,
    says: str,
    warnings: list[str],
) -> None:
    chart, namespace = locate(profile)
    text = notes(helm, tmp_path, chart, values(profile), namespace)
    assert says in text
    assert "<no value>" not in text
    assert re.findall(r"^((?:WARNING|NOTE): \w+(?:\.\w+)? is \w+)", text, re.MULTILINE) == warnings


def test_notes_warn_of_a_hub_without_its_admission_policy(
    helm: Helm, values: Callable[[str], Any], tmp_path: Path
) -> None:
    changed = {**values("operator"), "admissionPolicy": {"enabled": False}}
    text = notes(helm, tmp_path, "concordat-operator", changed, "concordat")
    assert "WARNING: admissionPolicy.enabled is false" in text


def test_notes_warn_of_a_site_that_trusts_no_evaluator(
    helm: Helm, values: Callable[[str], Any], tmp_path: Path
) -> None:
    changed = values("site-trainer")
    changed["trust"]["evaluators"] = {}
    assert "WARNING: trust.evaluators is empty" in notes(helm, tmp_path, "concordat-site", changed, "site-a")


def test_a_change_of_policy_or_trust_restarts_the_agent(helm: Helm, values: Callable[[str], Any]) -> None:
    def checksums(changed: Any) -> dict[str, str]:
        rendered = [o for o in yaml.safe_load_all(helm.render("concordat-site", changed, "site-a")) if o]
        found: dict[str, str] = find(rendered, "Deployment", "concordat-agent")["spec"]["template"]["metadata"][
            "annotations"
        ]
        return found

    before = checksums(values("site-trainer"))
    stricter, other = values("site-trainer"), values("site-trainer")
    stricter["policy"]["consent"]["maxSteps"] = 1
    other["trust"]["evaluators"] = {}
    assert checksums(stricter)["checksum/policy"] != before["checksum/policy"]
    assert checksums(stricter)["checksum/trust"] == before["checksum/trust"]
    assert checksums(other)["checksum/trust"] != before["checksum/trust"]
