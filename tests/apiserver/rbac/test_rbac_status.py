"""Who writes which part of a status: operator and agent share objects, and neither speaks for the other (F1, F6)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from concordat.api import Release, Resource, Site, Update
from concordat.controller import ApiError, Cluster
from concordat.controller.client import MERGE
from concordat.controller.kinds import gvk
from tests.apiserver.rbac.test_rbac_rights import REF, RELEASE_SPEC, SITE, UPDATE_SPEC, ours
from tests.apiserver.rbac.world import World
from tests.support.waiting import no_hang

NAMES: dict[type[Resource], str] = {Site: SITE, Update: "r1-0123abcd", Release: "digits-0"}
KEY = {"thumbprint": "SHA256:" + "A" * 43, "publicKey": "-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----\n"}
COUNTED = {"examples": 1, "parentPpm": 1, "candidatePpm": 1}
SENT = {"artifact": REF, "statement": REF, "norm": "1", "clipped": False, **COUNTED}
FIGURES = {**COUNTED, "candidateLowPpm": 1, "candidateHighPpm": 1}
AGENT = {"key": {"publicKey": KEY["publicKey"], "proof": "{}"}, "policyDigest": REF["digest"], "version": "1"}
CHAMPION = {"release": "digits-0", "sequence": 0, "artifact": REF, "qualityPpm": 1}
LATER = {"statement": REF, "consentDeadline": "2026-11-24T12:00:00Z", "submissionDeadline": "2026-11-24T13:00:00Z"}


def said(type_: str) -> dict[str, Any]:
    """A condition, true."""
    when = {"lastTransitionTime": "2026-11-24T12:00:00Z", "observedGeneration": 1}
    return {"conditions": [{"type": type_, "status": "True", "reason": "Accepted", "message": "Yes.", **when}]}


OF_THE_AGENT = [
    (Update, {"consent": {"statement": REF}}),
    (Update, {"submission": SENT}),
    (Update, said("Consented")),
    (Update, said("Staged")),
    (Update, said("Submitted")),
    (Release, {"decision": {"statement": REF, "evaluation": FIGURES}}),
    (Release, said("Evaluated")),
    (Release, said("Adopted")),
    (Site, {"agent": AGENT}),
    (Site, {"champion": CHAMPION}),
]
OF_THE_HUB = [
    (Update, {"verdict": {"reason": "Verified"}}),
    (Update, {"extension": LATER}),
    (Update, said("AttestationValid")),
    (Update, said("Verified")),
    (Release, {"attempt": {"number": 2, "retryTime": "2026-11-24T12:00:00Z", "failedJob": "1"}}),
    (Release, said("Validated")),
    (Release, {"lineage": REF}),
    (Site, {"acceptedKey": KEY}),
    (Site, said("Accepted")),
    (Site, said("Quarantined")),
]


@pytest.fixture
def objects(world: World) -> Iterator[None]:
    for kind, spec in ((Update, UPDATE_SPEC), (Release, RELEASE_SPEC)):
        manifest = ours(kind.KIND.kind, SITE, NAMES[kind], spec)
        world.kubectl("apply", "-f", "-", stdin=json.dumps(manifest))
    yield
    for plural in ("updates", "releases"):
        world.kubectl("delete", f"{plural}.concordat.dev", "-n", SITE, "--all")


async def attempt(who: Path, kind: type[Resource], status: dict[str, Any], *, keep: bool = False) -> str:
    """Try to write a part of a status: "" or why it is refused."""
    async with Cluster(who) as cluster:
        path = gvk(kind).path(SITE, NAMES[kind], "status")
        try:
            await cluster._write("PATCH", path, {"status": status}, {} if keep else {"dryRun": "All"}, MERGE)
        except ApiError as error:
            return str(error)
        return ""


@pytest.mark.usefixtures("objects")
@pytest.mark.parametrize(("kind", "status"), OF_THE_AGENT, ids=str)
@pytest.mark.attack("F1, F6: the operator writes what an agent says", "admission policy", "denied")
async def test_only_the_agent_speaks_for_its_site(
    operator: Path, agent: Path, kind: type[Resource], status: dict[str, Any]
) -> None:
    refusal = await attempt(operator, kind, status)
    assert "concordat-operator-status" in refusal
    assert "these are the words of the site's agent; the operator does not write them" in refusal
    assert await attempt(agent, kind, status) == ""


@pytest.mark.usefixtures("objects")
@pytest.mark.parametrize(("kind", "status"), OF_THE_HUB, ids=str)
@pytest.mark.attack("F6: an agent writes what the hub found", "admission policy", "denied")
async def test_only_the_operator_speaks_for_the_hub(
    operator: Path, agent: Path, kind: type[Resource], status: dict[str, Any]
) -> None:
    refusal = await attempt(agent, kind, status)
    assert "concordat-hub-status" in refusal
    assert "these are the words of the hub's operator; nobody else writes them" in refusal
    assert await attempt(operator, kind, status) == ""


@pytest.mark.usefixtures("objects")
@pytest.mark.parametrize("answer", ["consent", "submission"])
@pytest.mark.attack("F6: a consent or submission is exchanged", "API server, CRD", "cannot change")
async def test_an_answer_that_is_given_stays(agent: Path, answer: str) -> None:
    """Not even by the agent itself, nor by an administrator."""
    given: dict[str, dict[str, Any]] = {"consent": {"statement": REF}, "submission": SENT}
    other = {**given[answer], "statement": {**REF, "digest": "sha256:" + "b" * 64}}
    assert await attempt(agent, Update, {answer: given[answer]}, keep=True) == ""
    for changed in (other, None):
        assert "the site's answer cannot change once it is given" in await attempt(agent, Update, {answer: changed})


@pytest.mark.usefixtures("objects")
async def test_a_user_of_a_sites_namespace_accepts_no_key(world: World, who: Callable[[str], Path]) -> None:
    """F6: whoever may write the status there, by whatever role."""
    api = "rbac.authorization.k8s.io"
    rule = {"apiGroups": ["concordat.dev"], "resources": ["sites/status"], "verbs": ["patch"]}
    made = {"apiVersion": f"{api}/v1", "metadata": {"name": "site-admin", "namespace": SITE}}
    account = {"kind": "ServiceAccount", "name": "concordat-trainer", "namespace": SITE}
    role = {"apiGroup": api, "kind": "Role", "name": "site-admin"}
    for more in ({"kind": "Role", "rules": [rule]}, {"kind": "RoleBinding", "roleRef": role, "subjects": [account]}):
        world.kubectl("apply", "-f", "-", stdin=json.dumps({**made, **more}))
    try:
        async with no_hang(lambda: "the API server to know of the role"):
            while "cannot patch" in (refusal := await attempt(who("trainer"), Site, {"acceptedKey": KEY})):
                continue
        assert "concordat-hub-status" in refusal
    finally:
        world.kubectl("delete", "role,rolebinding", "site-admin", "-n", SITE)
