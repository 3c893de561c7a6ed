"""Decisions of the operator about one Site: its key, its presence, its quarantine."""

from __future__ import annotations

from datetime import timedelta

import pytest

from concordat.api import ConditionType, Reason, find, is_true
from concordat.statements import SigningKey
from concordat_operator.finding import Finding
from concordat_operator.sites import plan as site_plan
from tests.support.hub import Make
from tests.support.presence import condition, present


def heard(make: Make, seconds: float = 0) -> site_plan.Presence:
    silence = timedelta(seconds=seconds)
    return site_plan.Presence(silence, make.now - silence)


def test_a_key_once_pinned_is_never_replaced(make: Make) -> None:
    site = make.site("site-a")
    fresh = site.model_copy(update={"status": site.status.model_copy(update={"accepted_key": None})})
    pinned = site_plan.accept(fresh)
    assert not isinstance(pinned, Finding)
    assert pinned.thumbprint == make.key.thumbprint
    other = SigningKey.generate().public
    agent = present(site.status.agent).model_copy(update={"public_key": other.to_pem()})
    changed = site.model_copy(update={"status": site.status.model_copy(update={"agent": agent})})
    found = site_plan.accept(changed)
    assert isinstance(found, Finding)
    assert found.reason is Reason.KEY_CHANGED
    status = site_plan.status(changed, heard(make), None, make.now)
    assert status.accepted_key == site.status.accepted_key
    assert condition(status.conditions, "Ready").reason == "KeyChanged"


def test_a_thumbprint_in_the_spec_refuses_the_first_key_too(make: Make) -> None:
    site = make.site("site-a")
    other = SigningKey.generate().public.thumbprint
    spec = site.spec.model_copy(update={"public_key_thumbprint": other})
    bare = site.status.model_copy(update={"accepted_key": None})
    found = site_plan.accept(site.model_copy(update={"spec": spec, "status": bare}))
    assert isinstance(found, Finding)
    assert found.reason is Reason.KEY_CHANGED


def test_a_site_is_named_like_its_namespace(make: Make) -> None:
    site = make.site("site-a")
    moved = site.model_copy(update={"metadata": site.metadata.model_copy(update={"namespace": "elsewhere"})})
    found = site_plan.accept(moved)
    assert isinstance(found, Finding)
    assert found.reason is Reason.NAME_MISMATCH


@pytest.mark.parametrize(("silent", "ready"), [(0, True), (90, True), (91, False), (None, False)])
def test_a_site_is_ready_while_it_is_heard(make: Make, silent: int | None, ready: bool) -> None:
    presence = None if silent is None else heard(make, silent)
    status = site_plan.status(make.site("site-a"), presence, None, make.now)
    assert find(status.conditions, ConditionType.QUARANTINED) is None
    assert is_true(status.conditions, ConditionType.READY) is ready
    assert is_true(status.conditions, ConditionType.ACCEPTED)


def test_a_quarantine_is_shown_on_the_site_and_leaves_with_its_reason(make: Make) -> None:
    site = make.site("site-a")
    status = site_plan.status(site, heard(make), "Backdoor. Run: kubectl", make.now)
    found = condition(status.conditions, "Quarantined")
    assert (found.status.value, found.reason, found.message) == ("True", "PoisoningAlert", "Backdoor. Run: kubectl")
    later = site.model_copy(update={"status": status})
    assert find(site_plan.status(later, heard(make), None, make.now).conditions, ConditionType.QUARANTINED) is None
