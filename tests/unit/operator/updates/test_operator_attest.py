"""Which consents prove that a site holds its key."""

from __future__ import annotations

from typing import Any

import pytest

from concordat.api import Reason
from concordat.protocol.canonical import sha256_digest
from concordat.statements import SigningKey, names, sign, summary
from concordat.statements.contract import contract_statement
from concordat_operator.updates.reconcile import attested
from tests.support.hub import Make

KEY, STRANGER = SigningKey.generate(), SigningKey.generate()


def contract(make: Make) -> Any:
    """A contract in which site-a has KEY and site-b is a stranger's."""
    keys = {"site-a": KEY.public, "site-b": STRANGER.public}
    sites = [{"name": n, "keyThumbprint": k.thumbprint, "publicKey": k.to_pem()} for n, k in keys.items()]
    return make.contract(sites=sites)


def consent(make: Make, key: SigningKey = KEY, **changes: Any) -> bytes:
    """A signed consent of site-a to the contract of `make.update`."""
    said = {
        "site": "site-a",
        "round_uid": "0123abcd-1",
        "contract_digest": make.ref["digest"],
        "policy_digest": sha256_digest(b""),
        "passed": True,
        "reason": "Consented",
        "at": make.now,
    }
    return sign(summary.consent(**{**said, **changes}).statement(), key)


def test_a_consent_by_the_key_of_the_contract_proves_possession(make: Make) -> None:
    found = attested(make.update("site-a").spec, contract(make), consent(make))
    assert found.reason is Reason.KEY_POSSESSION_PROVED
    assert KEY.public.thumbprint in found.message


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"key": STRANGER}, "not signed by an accepted key"),
        ({"passed": False, "reason": "PolicyRefused"}, "no consent to this contract"),
        ({"contract_digest": sha256_digest(b"another contract")}, "no consent to this contract"),
        ({"site": "site-b"}, "names another site"),
    ],
)
def test_what_is_no_consent_of_this_site_to_this_contract_proves_nothing(
    make: Make, changes: dict[str, Any], says: str
) -> None:
    found = attested(make.update("site-a").spec, contract(make), consent(make, **changes))
    assert found.reason is Reason.KEY_POSSESSION_NOT_PROVED
    assert says in found.message


def test_a_verifier_that_is_another_sites_agent_proves_nothing(make: Make) -> None:
    statement = summary.consent(
        site="site-a",
        round_uid="0123abcd-1",
        contract_digest=make.ref["digest"],
        policy_digest=sha256_digest(b""),
        passed=True,
        reason="Consented",
        at=make.now,
    ).statement()
    statement["predicate"]["verifier"]["id"] = names.agent_id("site-b")
    found = attested(make.update("site-a").spec, contract(make), sign(statement, KEY))
    assert found.reason is Reason.KEY_POSSESSION_NOT_PROVED
    assert "names another site" in found.message


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not a bundle",
        sign(contract_statement({"schema": "x"}, sha256_digest(b"x")), KEY),
    ],
)
def test_what_is_no_verdict_at_all_proves_nothing(make: Make, data: bytes) -> None:
    found = attested(make.update("site-a").spec, contract(make), data)
    assert found.reason is Reason.KEY_POSSESSION_NOT_PROVED


def test_a_site_that_the_contract_does_not_name_proves_nothing(make: Make) -> None:
    found = attested(make.update("site-c").spec, contract(make), consent(make, site="site-c"))
    assert found.reason is Reason.KEY_POSSESSION_NOT_PROVED
    assert "does not name site-c" in found.message
