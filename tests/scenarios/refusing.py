"""A site whose API server admits no Jobs."""

from __future__ import annotations

from typing import Any

from concordat.controller import Invalid
from tests.fakes.api_server import Denial, FakeCluster
from tests.scenarios.federation import Federation
from tests.scenarios.node import IMAGE
from tests.support.waiting import no_hang


async def refuse_jobs(federation: Federation, short: str) -> None:
    """An admission policy of the site that admits no Jobs; returns once the API server enforces it."""
    name, space = f"{federation.prefix}-no-jobs", federation.name(short)
    if isinstance(federation.admin, FakeCluster):
        federation.admin.server.denials.append(_no_jobs(space))
        return
    group = "admissionregistration.k8s.io/v1"
    rules = [{"apiGroups": ["batch"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["jobs"]}]
    here = {"matchLabels": {"kubernetes.io/metadata.name": space}}
    policy = {
        "matchConstraints": {"resourceRules": rules, "namespaceSelector": here},
        "validations": [{"expression": "false", "message": "no Jobs here"}],
    }
    bound = {"policyName": name, "validationActions": ["Deny"]}
    for kind, plural, spec in (
        ("ValidatingAdmissionPolicy", "validatingadmissionpolicies", policy),
        ("ValidatingAdmissionPolicyBinding", "validatingadmissionpolicybindings", bound),
    ):
        path = f"/apis/{group}/{plural}"
        made = {"apiVersion": group, "kind": kind, "metadata": {"name": name}, "spec": spec}
        await federation.admin._write("POST", path, made)
    container = {"name": "probe", "image": IMAGE}
    pod = {"containers": [container], "restartPolicy": "Never"}
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "probe"}}
    probe = {**job, "spec": {"template": {"spec": pod}}}
    path, dry = f"/apis/batch/v1/namespaces/{space}/jobs", {"dryRun": "All"}
    async with no_hang(lambda: f"the admission policy {name}"):
        while True:
            try:
                await federation.admin._request("POST", path, dry, probe)
            except Invalid:
                return


def _no_jobs(space: str) -> Denial:
    def denial(method: str, path: str, _: Any) -> tuple[int, str, str] | None:
        refused = method == "POST" and path == f"/apis/batch/v1/namespaces/{space}/jobs"
        return (422, "Invalid", "no Jobs here") if refused else None

    return denial
