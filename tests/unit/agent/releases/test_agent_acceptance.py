"""What may be measured at a site: each rule by itself, and all of them in one refusal."""

from __future__ import annotations

from typing import Any

import pytest

from concordat.api import Release, Site
from concordat_agent.releases.acceptance import RELEASE_CHECKS, refusal
from tests.support.contracts import IMAGE, REF
from tests.support.policies import policy

OTHER_BASE = "sha256:" + "b" * 64
OTHER_IMAGE = "registry/learning@sha256:" + "2" * 64


def _release(**changes: Any) -> Release:
    spec = {"federation": "digits", "sequence": 1, "base": REF, "adapter": REF, **changes}
    return Release.model_validate({"metadata": {"name": "r1", "namespace": "site-a"}, "spec": spec})


def _site(federation: str = "digits", image: str = IMAGE) -> Site:
    claims = [{"name": federation, "dataClaim": "data"}]
    spec = {"federations": claims, "workspaceClaim": "workspace", "judgingImage": image}
    return Site.model_validate({"metadata": {"name": "site-a", "namespace": "site-a"}, "spec": spec})


@pytest.mark.parametrize(
    ("rules", "release", "site", "says"),
    [
        ({}, {}, {}, None),
        ({}, {}, {"federation": "letters"}, "federation 'digits' is not among this site's federations"),
        ({}, {}, {"image": OTHER_IMAGE}, "install both from one values file"),
        ({"allowedBases": [OTHER_BASE, REF.digest]}, {}, {}, None),
        ({"allowedBases": [OTHER_BASE]}, {}, {}, f"base {REF.digest} is not among this site's 1 allowedBases"),
        ({"requiredRuntimeClass": "gvisor"}, {"runtimeClassName": "gvisor"}, {}, None),
        (
            {"requiredRuntimeClass": "gvisor"},
            {},
            {},
            "runtimeClassName is absent, this site's requiredRuntimeClass is gvisor",
        ),
    ],
)
def test_a_rule(rules: dict[str, Any], release: dict[str, Any], site: dict[str, Any], says: str | None) -> None:
    found = refusal(policy(IMAGE, **rules), _release(**release), _site(**site))
    assert (found is None) is (says is None)
    assert says is None or says in (found or "")


def test_all_objections_are_told_at_once() -> None:
    strict = policy(IMAGE, allowedBases=[OTHER_BASE], requiredRuntimeClass="gvisor")
    found = refusal(strict, _release(), _site("letters", OTHER_IMAGE))
    assert found is not None
    assert found.count("; ") == len(RELEASE_CHECKS) - 1
