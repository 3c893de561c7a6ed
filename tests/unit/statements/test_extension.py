"""Later deadlines: signed by the hub, about one contract, and never earlier than what holds."""

from __future__ import annotations

from datetime import timedelta

import pytest

from concordat.statements import SigningKey, StatementError, sign
from concordat.statements.closure import Closure
from concordat.statements.extension import Extension, open_extension
from concordat_agent.updates.contract import ContractRefused, _extended
from concordat_operator.keys import Keys
from concordat_operator.rounds.contract import later_deadlines
from tests.support.hub import DIGEST, NOW, REF, Make

KEY, OTHER = SigningKey.generate(), SigningKey.generate()
LATER = Extension(contract=DIGEST, consent_deadline=NOW, submission_deadline=NOW + timedelta(hours=2))


def test_an_extension_is_read_as_it_was_signed() -> None:
    assert open_extension(sign(LATER.statement(), KEY), [KEY.public], DIGEST) == LATER


def test_another_key_another_contract_and_another_statement_are_refused() -> None:
    closure = Closure(contract=DIGEST, verdicts=(), accepted=0, rejected=0, missing=(), closed=NOW)
    for bundle, about in (
        (sign(LATER.statement(), OTHER), DIGEST),
        (sign(LATER.statement(), KEY), "sha256:" + "b" * 64),
        (sign(closure.statement(), KEY), DIGEST),
        (b"{}", DIGEST),
    ):
        with pytest.raises(StatementError):
            open_extension(bundle, [KEY.public], about)


@pytest.mark.parametrize("hours", [1, 3])
def test_an_agent_takes_no_deadline_that_the_hub_did_not_sign(hours: int) -> None:
    trust = Keys(KEY, KEY).trust({})
    shown = {"statement": REF, "consentDeadline": NOW, "submissionDeadline": NOW + timedelta(hours=hours)}
    update = Make().update("site-a")
    update = update.model_validate({**update.wire(), "status": {"extension": shown}})
    with pytest.raises(ContractRefused, match="later deadlines"):
        _extended(update, sign(LATER.statement(), KEY), trust, DIGEST)
    with pytest.raises(ContractRefused, match="cannot be relied on"):
        _extended(update, None, trust, DIGEST)


@pytest.mark.parametrize(
    ("asked", "consent", "submission"),
    [
        ({"submissionSeconds": 7200}, 300, 7200),
        ({"consentSeconds": 600}, 600, 3600),
        ({"consentSeconds": 9000}, 3600, 3600),
        ({"consentSeconds": 9000, "submissionSeconds": 9000}, 9000, 9000),
        ({"submissionSeconds": 3600}, None, None),
        ({}, None, None),
        (None, None, None),
    ],
)
def test_deadlines_only_move_later(asked: dict[str, int] | None, consent: int | None, submission: int | None) -> None:
    make = Make()
    found = later_deadlines(make.round(extendDeadlines=asked), make.contract())
    wanted = None
    if consent is not None and submission is not None:
        wanted = (NOW + timedelta(seconds=consent), NOW + timedelta(seconds=submission))
    assert found == wanted
