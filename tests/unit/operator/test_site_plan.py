"""Decisions of the operator about one Site: its presence, its quarantine."""

from __future__ import annotations

from datetime import timedelta

import pytest

from concordat.api import ConditionType, Reason, find, is_true
from concordat_operator.finding import Finding
from concordat_operator.sites import plan as site_plan
from tests.support.hub import Make
from tests.support.presence import condition


def heard(make: Make, seconds: float = 0) -> site_plan.Presence:
    silence = timedelta(seconds=seconds)
    return site_plan.Presence(silence, make.now - silence)


@pytest.mark.parametrize(("silent", "ready"), [(0, True), (90, True), (91, False), (None, False)])
def test_a_site_is_ready_while_it_is_heard(make: Make, silent: int | None, ready: bool) -> None:
    presence = None if silent is None else heard(make, silent)
    status = site_plan.status(make.site("site-a"), make.members()["site-a"], presence, None, make.now)
    assert find(status.conditions, ConditionType.QUARANTINED) is None
    assert is_true(status.conditions, ConditionType.READY) is ready
    assert is_true(status.conditions, ConditionType.ACCEPTED)


def test_a_quarantine_is_shown_on_the_site_and_leaves_with_its_reason(make: Make) -> None:
    site = make.site("site-a")
    status = site_plan.status(site, make.members()["site-a"], heard(make), "Backdoor. Run: kubectl", make.now)
    found = condition(status.conditions, "Quarantined")
    assert (found.status.value, found.reason, found.message) == ("True", "PoisoningAlert", "Backdoor. Run: kubectl")
    later = site.model_copy(update={"status": status})
    after = site_plan.status(later, make.members()["site-a"], heard(make), None, make.now)
    assert find(after.conditions, ConditionType.QUARANTINED) is None


def test_a_site_that_is_no_member_has_no_accepted_key(make: Make) -> None:
    site, why = make.site("site-a"), Finding(Reason.NOT_A_MEMBER, "Nobody accepted it.")
    status = site_plan.status(site, why, heard(make), None, make.now)
    assert status.accepted_key is None
    for type_ in ("Accepted", "Ready"):
        shown = condition(status.conditions, type_)
        assert (shown.status.value, shown.reason, shown.message) == ("False", "NotAMember", "Nobody accepted it.")
    status = site_plan.status(site, make.members()["site-a"], heard(make), None, make.now)
    assert status.accepted_key == make.members()["site-a"].key
