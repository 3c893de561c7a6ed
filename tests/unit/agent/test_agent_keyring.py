"""The site's keys on its volume, and what the hub is shown of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from concordat.statements import PublicKey, SigningKey, StatementError
from concordat.statements.enrolment import check_enrolment
from concordat_agent.keyring import Keyring


def test_each_version_is_made_once_and_the_one_before_is_kept(tmp_path: Path) -> None:
    file = tmp_path / "site.key"
    (first,) = Keyring.load(file).public
    assert Keyring.load(file).public == (first,)
    second, before = Keyring.load(file, 2).public
    assert before == first
    assert second != first
    assert Keyring.load(file, 2).public == (second, first)
    assert Keyring.load(file, 3).public[1:] == (second,)
    assert Keyring.load(file, 1).public == (first,)
    assert len(Keyring.load(tmp_path / "new" / "site.key", 5).public) == 1


def test_a_statement_is_signed_with_the_key_that_is_named_else_with_the_newest() -> None:
    new, old = SigningKey.generate(), SigningKey.generate()
    keys = Keyring(new, old)
    assert keys.choose(old.public.thumbprint) is old
    for thumbprint in (new.public.thumbprint, None, "SHA256:other"):
        assert keys.choose(thumbprint) is new


def test_each_key_is_shown_with_its_proof_and_the_endorsement_of_the_one_before() -> None:
    new, old = SigningKey.generate(), SigningKey.generate()
    shown = Keyring(new, old).shown("site-a", "uid-1")
    for agent_key, key in zip(shown, (new, old), strict=True):
        assert PublicKey.from_pem(agent_key.public_key) == key.public
        check_enrolment(agent_key.proof.encode(), key.public, key.public, "site-a", "uid-1")
    assert shown[0].endorsement is not None
    check_enrolment(shown[0].endorsement.encode(), old.public, new.public, "site-a", "uid-1")
    assert shown[1].endorsement is None
    assert Keyring(new, old).shown("site-a", "uid-1") == shown


@pytest.mark.parametrize(("site", "uid"), [("site-b", "uid-1"), ("site-a", "uid-2")])
def test_a_proof_is_of_one_site_object(site: str, uid: str) -> None:
    key = SigningKey.generate()
    (shown,) = Keyring(key).shown("site-a", "uid-1")
    with pytest.raises(StatementError, match="the proof is of Site site-a with uid uid-1"):
        check_enrolment(shown.proof.encode(), key.public, key.public, site, uid)
    other = SigningKey.generate().public
    with pytest.raises(StatementError, match="the proof is of another key"):
        check_enrolment(shown.proof.encode(), key.public, other, "site-a", "uid-1")
