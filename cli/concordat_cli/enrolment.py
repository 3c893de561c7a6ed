"""From what a site's agent shows to the Membership that accepts it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from concordat.api import Membership, Role, Site
from concordat.api.membership import MAX_KEYS, MemberKey, MembershipSpec
from concordat.api.types import ObjectMeta
from concordat.statements import PublicKey, StatementError
from concordat.statements.enrolment import check_enrolment
from concordat_cli.errors import Exit, UserError

OVERLAP = timedelta(days=7)
"""For how long the key before still counts, so that rounds under way can end with it."""


@dataclass(frozen=True)
class Request:
    """A key that a site shows, and proves to hold."""

    site: Site
    key: PublicKey
    endorsements: tuple[str, ...]
    """Statements of the key before about it."""


def request(site: Site) -> Request:
    """Return the newest key that a Site shows. Raises UserError if it shows none, or does not hold it."""
    name, agent = site.metadata.name, site.status.agent
    if agent is None:
        raise UserError(f"the agent of {name} has not shown a key yet: see whether its pod runs")
    shown = agent.key
    try:
        key = PublicKey.from_pem(shown.public_key)
        check_enrolment(shown.proof.encode(), key, key, name, site.metadata.uid)
    except StatementError as error:
        raise UserError(f"the agent of {name} does not prove that it holds the key that it shows: {error}") from None
    return Request(site, key, (shown.endorsement,) if shown.endorsement else ())


def membership(
    asked: Request,
    namespace: str,
    present: Membership | None,
    now: datetime,
    *,
    role: Role = Role.TRAINER,
    federations: tuple[str, ...] = (),
    replace: bool = False,
) -> Membership:
    """Return the Membership with the key that the site asks for.

    `present` is its Membership as it is. The federations are those that the Site names, unless some are given. Raises
    UserError if the role is another, or if none of the keys that count now endorses the new one; `replace` then puts it
    in their place at once.
    """
    site, now = asked.site, now.replace(microsecond=0)
    name = site.metadata.name
    if site.spec.role is not (present.spec.role if present is not None else role):
        raise UserError(
            f"{name} is installed as {site.spec.role}: give --role {site.spec.role} if that is meant", Exit.USAGE
        )
    new = MemberKey(public_key=asked.key.to_pem(), not_before=None)
    if present is None:
        named = list(federations) or [federation.name for federation in site.spec.federations]
        spec = MembershipSpec(role=role, federations=named, keys=[new])
    else:
        keys = [new] if replace else _rotated(asked, present, now)
        wanted = list(federations) or present.spec.federations
        spec = present.spec.model_copy(update={"keys": keys, "federations": wanted})
    return Membership(metadata=ObjectMeta(name=name, namespace=namespace), spec=spec)


def manifest(wanted: Membership) -> dict[str, object]:
    """Return the Membership as it is applied, or kept in Git."""
    metadata = {"name": wanted.metadata.name, "namespace": wanted.metadata.namespace}
    return {"apiVersion": wanted.api_version, "kind": wanted.kind, "metadata": metadata, "spec": wanted.spec.wire()}


def _rotated(asked: Request, present: Membership, now: datetime) -> list[MemberKey]:
    """Return the keys with the new one first; those before it count a while longer."""
    name, counting = asked.site.metadata.name, [key for key in present.spec.keys if key.counts(now)]
    known = [_key(name, key) for key in counting]
    if asked.key in known:
        return list(present.spec.keys)
    if not any(_endorses(key, asked) for key in known):
        raise UserError(
            f"the key {asked.key.thumbprint} of {name} is not endorsed by a key of its Membership that counts now. If "
            "the site has lost that key, ask its people, and put the new one in its place with --replace"
        )
    ends = now + OVERLAP
    before = [key.model_copy(update={"not_after": min(key.not_after or ends, ends)}) for key in counting]
    return [MemberKey(public_key=asked.key.to_pem()), *before][:MAX_KEYS]


def _key(name: str, key: MemberKey) -> PublicKey:
    try:
        return PublicKey.from_pem(key.public_key)
    except StatementError as error:
        raise UserError(f"Membership {name} names a key that is none: {error}; correct or remove it") from None


def _endorses(before: PublicKey, asked: Request) -> bool:
    for endorsement in asked.endorsements:
        try:
            check_enrolment(endorsement.encode(), before, asked.key, asked.site.metadata.name, asked.site.metadata.uid)
        except StatementError:
            continue
        return True
    return False
