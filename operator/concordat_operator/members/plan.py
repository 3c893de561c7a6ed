"""Whether a site is a member, and by which key: its Membership against what its agent shows and proves."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from concordat.api import ConditionSet, ConditionType, Membership, Reason, Role, Site
from concordat.api.membership import MembershipStatus
from concordat.api.site import AcceptedKey, AgentKey
from concordat.statements import PublicKey, StatementError
from concordat.statements.enrolment import check_enrolment
from concordat_operator.finding import Finding


@dataclass(frozen=True)
class Member:
    """A site whose word counts."""

    name: str
    role: Role
    federations: frozenset[str]
    key: AcceptedKey
    """The newest of the keys that it shows and its Membership names for now."""


def judge(site: Site, membership: Membership | None, owner: str | None, now: datetime) -> Member | Finding:
    """Return the member that a site is, or why it is none.

    `owner` is who has one of the Membership's keys by right, if that is another.
    """
    name, agent = site.metadata.name, site.status.agent
    if name != site.metadata.namespace:
        return Finding(
            Reason.NAME_MISMATCH,
            f"A site is named like its namespace: create it as {site.metadata.namespace!r}.",
        )
    if membership is None:
        return _stranger(site)
    if membership.spec.suspended:
        return Finding(
            Reason.MEMBERSHIP_SUSPENDED, f"Membership {name}: spec.suspended is true; set it to false to go on."
        )
    if membership.spec.role is not site.spec.role:
        return Finding(
            Reason.ROLE_MISMATCH,
            f"The Site says role {site.spec.role}, its Membership {membership.spec.role}: install the wrong one anew.",
        )
    if owner is not None:
        return Finding(
            Reason.KEY_IN_USE,
            f"A key of Membership {name} is {owner}'s: no two share one. Take it out of where it does not belong.",
        )
    if agent is None:
        return _no_key()
    return _proved(site, membership, agent.keys, now)


def _proved(site: Site, membership: Membership, shown: list[AgentKey], now: datetime) -> Member | Finding:
    """Return the member by the newest key that it shows, proves, and is accepted by."""
    name, why = site.metadata.name, _no_key()
    for agent_key in shown:
        try:
            key = PublicKey.from_pem(agent_key.public_key)
            check_enrolment(agent_key.proof.encode(), key, key, name, site.metadata.uid)
        except StatementError as error:
            return Finding(
                Reason.KEY_POSSESSION_NOT_PROVED, f"The agent does not prove that it holds the key it shows: {error}."
            )
        named = next((k for k in membership.spec.keys if _read(k.public_key) == key), None)
        if named is not None and named.counts(now):
            return Member(
                name=name,
                role=membership.spec.role,
                federations=frozenset(membership.spec.federations),
                key=AcceptedKey(thumbprint=key.thumbprint, public_key=key.to_pem()),
            )
        if named is not None:
            why = Finding(
                Reason.KEY_EXPIRED,
                f"Membership {name} names the key {key.thumbprint}, but not for now: see its notBefore and notAfter.",
            )
        elif why.reason != Reason.KEY_EXPIRED:
            why = Finding(
                Reason.KEY_CHANGED,
                f"The agent shows the key {key.thumbprint}, which Membership {name} does not name: its statements are "
                f"refused. If the change is meant: concordat site accept {name}.",
            )
    return why


def status(membership: Membership, found: Member | Finding | None, now: datetime) -> MembershipStatus:
    """Return the status of a Membership; `found` is what `judge` says of its site, None: there is none."""
    generation = membership.metadata.generation
    conditions = ConditionSet(membership.status.conditions, generation, now)
    name = membership.metadata.name
    if found is None:
        missing = f"There is no Site {name} in namespace {name} yet: its people install the concordat-site chart."
        conditions.set(ConditionType.READY, False, Reason.SITE_NOT_FOUND, missing)
    elif isinstance(found, Finding):
        conditions.set(ConditionType.READY, False, found.reason, found.message)
    else:
        conditions.set(ConditionType.READY, True, Reason.ACCEPTED, accepted(found))
    return MembershipStatus(observed_generation=generation, conditions=conditions.list())


def accepted(member: Member) -> str:
    """Return the sentence that says by which key a member is accepted."""
    return f"The hub accepts statements signed by {member.key.thumbprint}."


def has_terms(membership: Membership) -> bool:
    """Return whether a key of it begins or ceases to count as time passes."""
    return any(key.not_before is not None or key.not_after is not None for key in membership.spec.keys)


def keys_of(membership: Membership) -> set[PublicKey]:
    """Return the keys that a Membership names, also those that do not count now."""
    return {found for key in membership.spec.keys if (found := _read(key.public_key)) is not None}


def keys_to_trust(membership: Membership, now: datetime) -> tuple[PublicKey, ...]:
    """Return the keys that others do well to trust: all that have not ceased to count."""
    lasting = (key for key in membership.spec.keys if key.not_after is None or now < key.not_after)
    return tuple(found for key in lasting if (found := _read(key.public_key)) is not None)


def rank(membership: Membership) -> tuple[bool, float, str]:
    """Return who has a key by right, of several that name it: an evaluator, then the one that is there longest."""
    made = membership.metadata.creation_timestamp
    return (
        membership.spec.role is not Role.EVALUATOR,
        made.timestamp() if made is not None else 0.0,
        membership.metadata.name,
    )


def _read(pem: str) -> PublicKey | None:
    """Return the key; None for what is no key: no signature is by that."""
    try:
        return PublicKey.from_pem(pem)
    except StatementError:
        return None


def _stranger(site: Site) -> Finding:
    agent, name = site.status.agent, site.metadata.name
    if agent is None:
        return _no_key()
    try:
        shown = PublicKey.from_pem(agent.key.public_key).thumbprint
    except StatementError as error:
        return Finding(Reason.NO_KEY, f"status.agent.key.publicKey cannot be used: {error}.")
    return Finding(
        Reason.NOT_A_MEMBER,
        f"No Membership accepts this site. Its agent shows the key {shown}: compare it with the one in the agent's "
        f"log, then run concordat site accept {name}.",
    )


def _no_key() -> Finding:
    return Finding(Reason.NO_KEY, "The agent has not shown its public key yet: see whether its pod runs.")
