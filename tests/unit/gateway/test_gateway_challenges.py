"""A nonce is taken once, from the site it was given to, for its contract, while it is fresh."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from concordat.controller import FixedClock
from concordat_gateway.challenges import LIFETIME, Challenges
from concordat_gateway.refusals import Stale
from tests.support.hub import NOW

C, OTHER = ("sha256:" + letter * 64 for letter in "ab")


@pytest.mark.attack("a challenge replayed", "gateway", "STALE_NONCE")
def test_a_nonce_is_taken_once() -> None:
    challenges = Challenges(FixedClock(NOW))
    nonce, expires = challenges.give("site-a", C)
    assert expires == NOW + LIFETIME
    challenges.take(nonce, "site-a", C)
    for again in (nonce, nonce + "=", f" {nonce}"):
        with pytest.raises(Stale):
            challenges.take(again, "site-a", C)


@pytest.mark.parametrize(("site", "contract"), [("site-b", C), ("site-a", OTHER), ("site-a sha256:", C)])
def test_a_nonce_is_for_one_site_and_one_contract(site: str, contract: str) -> None:
    challenges = Challenges(FixedClock(NOW))
    nonce, _ = challenges.give("site-a", C)
    with pytest.raises(Stale, match="not given to this site for this contract"):
        challenges.take(nonce, site, contract)
    challenges.take(nonce, "site-a", C)


def test_a_nonce_expires_and_what_was_used_is_forgotten_then() -> None:
    clock = FixedClock(NOW)
    challenges = Challenges(clock)
    used, _ = challenges.give("site-a", C)
    unused, _ = challenges.give("site-a", C)
    challenges.take(used, "site-a", C)
    clock.advance(LIFETIME.total_seconds())
    for nonce in (used, unused):
        with pytest.raises(Stale, match="has expired"):
            challenges.take(nonce, "site-a", C)
    fresh, _ = challenges.give("site-a", C)
    challenges.take(fresh, "site-a", C)
    assert len(challenges._used) == 1


def test_another_process_takes_none_of_them() -> None:
    nonce, _ = Challenges(FixedClock(NOW)).give("site-a", C)
    with pytest.raises(Stale, match="by this process"):
        Challenges(FixedClock(NOW)).take(nonce, "site-a", C)


@given(st.text(max_size=120) | st.binary(max_size=90).map(lambda data: base64.urlsafe_b64encode(data).decode()))
def test_any_text_is_no_nonce(text: str) -> None:
    with pytest.raises(Stale):
        Challenges(FixedClock(NOW)).take(text, "site-a", C)


@given(st.integers(0, 55), st.integers(1, 255))
def test_no_bit_of_a_nonce_can_be_changed(at: int, change: int) -> None:
    challenges = Challenges(FixedClock(NOW))
    data = bytearray(base64.urlsafe_b64decode(challenges.give("site-a", C)[0]))
    data[at] ^= change
    with pytest.raises(Stale):
        challenges.take(base64.urlsafe_b64encode(bytes(data)).decode(), "site-a", C)
