"""Finding 21: what is in the way of a step has a reason and a remedy; what is a bug stays one."""

from __future__ import annotations

import errno
from datetime import UTC, datetime

import pytest

from concordat.api import ConditionSet, ConditionType, Reason
from concordat.artifacts import ArtifactError, RegistryUnavailable
from concordat.artifacts.http import Refused
from concordat_agent.policy import Answer
from concordat_agent.trouble import show, trouble

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("error", "reason", "says"),
    [
        (RegistryUnavailable("no answer"), "RegistryUnavailable", "no answer; it is tried again every 15 s"),
        (Refused("PUT /v2/x", 401, "who are you"), "RegistryRefused", "PUT /v2/x: 401 who are you"),
        (Refused("PUT /v2/x", 403, "no"), "RegistryRefused", "what the registry and the proxies before it allow"),
        (ArtifactError("the registry sent us to another host"), "RegistryRefused", "another host"),
        (OSError(errno.ENOSPC, "No space left on device", "/w/x"), "DiskFull", "No space left on device at /w/x"),
        (OSError(errno.EDQUOT, "Quota exceeded"), "DiskFull", "Enlarge the site's workspace claim"),
    ],
)
def test_trouble_has_a_reason_and_a_remedy(error: ArtifactError | OSError, reason: str, says: str) -> None:
    found = trouble(error)
    assert found is not None
    assert (found.passed, found.reason) == (False, reason)
    assert says in found.message


@pytest.mark.parametrize("error", [OSError(errno.EIO, "Input/output error"), TimeoutError()])
def test_another_error_is_no_trouble(error: OSError) -> None:
    assert trouble(error) is None


def test_the_same_trouble_in_other_words_is_no_news() -> None:
    conditions = ConditionSet([], 1, NOW)
    for text in ("first", "second"):
        found = trouble(RegistryUnavailable(text))
        assert found is not None
        show(conditions, ConditionType.STAGED, found)
    (shown,) = conditions.list()
    assert shown.message.startswith("first")


def test_hours_that_changed_while_a_site_waits_for_them_are_news() -> None:
    conditions = ConditionSet([], 1, NOW)
    for text in ("from 20:00", "from 18:00"):
        show(conditions, ConditionType.CONSENTED, Answer.no(Reason.WAITING, text))
    (shown,) = conditions.list()
    assert shown.message == "from 18:00"
