"""Who may do what at the gateway: by a table, and what no request may ever do (security finding F3)."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from concordat.api import Membership
from concordat.protocol import locations as at
from concordat_gateway.asked import Act, Asked, asked
from concordat_gateway.rights import Caller, objection

HUB, UID = "concordat", "0123abcd-1"
DIGEST = "sha256:" + "a" * 64


def member(name: str, **spec: Any) -> Membership:
    """A member of the federation `digits`."""
    given = {"federations": ["digits"], "keys": [{"publicKey": "pem"}], **spec}
    return Membership.model_validate({"metadata": {"name": name, "namespace": HUB}, "spec": given})


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("GET", f"/v2/digits/base/manifests/{DIGEST}", Asked("digits/base", Act.PULL)),
        ("HEAD", "/v2/digits/base/manifests/a-0123", Asked("digits/base", Act.PULL)),
        ("PUT", "/v2/digits/rounds/1/site-a/manifests/a-0123", Asked("digits/rounds/1/site-a", Act.PUSH)),
        ("DELETE", f"/v2/digits/base/manifests/{DIGEST}", Asked("digits/base", Act.DELETE)),
        ("GET", f"/v2/digits/base/blobs/{DIGEST}", Asked("digits/base", Act.PULL)),
        ("DELETE", f"/v2/digits/base/blobs/{DIGEST}", Asked("digits/base", Act.DELETE)),
        ("POST", "/v2/digits/base/blobs/uploads/", Asked("digits/base", Act.PUSH)),
        ("PATCH", "/v2/digits/base/blobs/uploads/0f-1", Asked("digits/base", Act.PUSH)),
        ("GET", "/v2/digits/base/tags/list", Asked("digits/base", Act.LIST)),
        # A repository may be named like a part of the protocol.
        ("GET", f"/v2/digits/manifests/blobs/{DIGEST}", Asked("digits/manifests", Act.PULL)),
        ("GET", "/v2/", None),
        ("GET", "/v2/_catalog", None),
        ("POST", f"/v2/digits/base/manifests/{DIGEST}", None),
        ("GET", "/v2/digits/base/blobs/uploads/", None),
        ("GET", f"/v2/digits/base/../rounds/blobs/{DIGEST}", None),
        ("GET", f"/v2/digits//base/blobs/{DIGEST}", None),
        ("GET", f"/v2/digits%2fbase/blobs/{DIGEST}", None),
        ("GET", f"/v2/digits/base/%2e%2e/x/blobs/{DIGEST}", None),
        ("GET", f"/debug/pprof/../v2/digits/base/blobs/{DIGEST}", None),
        ("GET", f"/v2/Digits/base/blobs/{DIGEST}", None),
    ],
)
def test_what_a_request_asks_for(method: str, path: str, expected: Asked | None) -> None:
    assert asked(method, path) == expected


def test_nothing_is_mounted_from_another_repository() -> None:
    assert asked("POST", "/v2/digits/decisions/site-a/blobs/uploads/", {"mount": DIGEST, "from": "x"}) is None


SLOT, OTHERS = at.site_repository("digits", UID, "site-a"), at.site_repository("digits", UID, "site-b")
READ = [
    at.base_repository("digits"),
    at.adapters_repository("digits"),
    at.lineage_repository("digits"),
    at.releases_repository("digits"),
    at.round_repository("digits", UID),
]
OWN = [SLOT, at.decisions_repository("digits", "site-a")]
FOREIGN = [
    OTHERS,
    at.decisions_repository("digits", "site-b"),
    at.base_repository("letters"),
    at.site_repository("letters", UID, "site-a"),
    f"{SLOT}/more",
    "digits",
    "other",
]
AGENT = Caller("site-a", "concordat-agent")


@pytest.mark.parametrize("act", Act)
@pytest.mark.parametrize("repository", [*READ, *OWN, *FOREIGN])
@pytest.mark.attack("F3: pull, push, delete or list what is another's", "gateway", "DENIED")
def test_a_site_reads_what_is_for_all_and_writes_what_is_its_own(repository: str, act: Act) -> None:
    allowed = {Act.PULL: repository in [*READ, *OWN], Act.PUSH: repository in OWN}.get(act, False)
    assert (objection(AGENT, Asked(repository, act), HUB, member("site-a")) is None) is allowed


@pytest.mark.parametrize(
    ("caller", "membership", "says"),
    [
        (AGENT, None, "concordat site accept site-a"),
        (AGENT, member("site-a", suspended=True), "is suspended"),
        (Caller("site-a", "default"), member("site-a"), "neither the hub's nor a site's agent"),
        (Caller("site-a", "concordat-operator"), member("site-a"), "neither the hub's nor a site's agent"),
        (Caller(HUB, "default"), None, "neither the hub's nor a site's agent"),
        (Caller(HUB, "concordat-agent"), None, "is no member"),
    ],
)
@pytest.mark.attack("F3: another ServiceAccount, no member, suspended", "gateway", "DENIED")
def test_nobody_else_is_let_in(caller: Caller, membership: Membership | None, says: str) -> None:
    for act in Act:
        for repository in (*READ, *OWN):
            assert says in (objection(caller, Asked(repository, act), HUB, membership) or "")


@pytest.mark.parametrize(
    ("account", "repository", "acts"),
    [
        ("concordat-operator", OTHERS, set(Act)),
        ("concordat-operator", "anything/else", set(Act)),
        ("concordat-aggregator", OTHERS, {Act.PULL}),
        ("concordat-aggregator", at.round_repository("digits", UID), {Act.PULL, Act.PUSH}),
        ("concordat-aggregator", at.adapters_repository("digits"), {Act.PULL, Act.PUSH}),
        ("concordat-aggregator", at.releases_repository("digits"), {Act.PULL}),
        ("concordat-publisher", at.base_repository("digits"), {Act.PULL, Act.PUSH}),
        ("concordat-publisher", at.adapters_repository("digits"), {Act.PULL, Act.PUSH}),
        ("concordat-publisher", at.round_repository("digits", UID), set()),
        ("concordat-publisher", OTHERS, set()),
    ],
)
def test_the_hubs_own_accounts(account: str, repository: str, acts: set[Act]) -> None:
    caller = Caller(HUB, account)
    assert {act for act in Act if objection(caller, Asked(repository, act), HUB, None) is None} == acts


_PART = st.from_regex(r"[a-z0-9]{1,8}(-[a-z0-9]{1,8})?", fullmatch=True)


@given(st.lists(_PART, min_size=1, max_size=6), st.sampled_from(list(Act)))
def test_a_site_never_changes_what_does_not_end_in_its_name(parts: list[str], act: Act) -> None:
    what = Asked("/".join(parts), act)
    if objection(AGENT, what, HUB, member("site-a")) is None and act is not Act.PULL:
        assert act is Act.PUSH
        assert parts[-1] == "site-a"


@given(st.text(alphabet="/.%_-abv2:", max_size=60), st.sampled_from(["GET", "PUT", "POST", "PATCH", "DELETE", "HEAD"]))
def test_a_repository_has_no_strange_parts(rest: str, method: str) -> None:
    for path in (f"/v2/{rest}/tags/list", f"/v2/{rest}/blobs/{DIGEST}", f"/v2/{rest}"):
        found = asked(method, path)
        assert found is None or not {"", ".", ".."} & set(found.repository.split("/"))
