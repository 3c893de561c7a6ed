"""Who may do what in which repository. All that is not allowed here is refused."""

from __future__ import annotations

from dataclasses import dataclass, field

from concordat.api import Membership
from concordat.protocol.locations import (
    adapters_repository,
    base_repository,
    decisions_repository,
    lineage_repository,
    releases_repository,
    round_repository,
    site_repository,
)
from concordat_gateway.asked import Act, Asked

OPERATOR, AGGREGATOR, PUBLISHER, AGENT = (
    "concordat-operator",
    "concordat-aggregator",
    "concordat-publisher",
    "concordat-agent",
)
"""ServiceAccounts: the first three of the hub's namespace, the last of each site's."""


@dataclass(frozen=True)
class Pod:
    """A pod, as the API server names it."""

    name: str
    uid: str


@dataclass(frozen=True)
class Caller:
    """A ServiceAccount, as the API server knows it by its token."""

    namespace: str
    account: str
    pod: Pod | None = field(default=None, compare=False)
    """The pod that the token is bound to."""

    def __str__(self) -> str:
        return f"{self.namespace}/{self.account}"


def objection(caller: Caller, what: Asked, hub: str, membership: Membership | None) -> str | None:
    """Return why the caller may not do what it asks for; None if it may. `membership` is that of its namespace."""
    if caller.namespace == hub and caller.account in (OPERATOR, AGGREGATOR, PUBLISHER):
        return None if _of_the_hub(caller.account, what) else f"{caller.account} may not {what.act} {what.repository}"
    if caller.account != AGENT:
        return f"{caller} is neither the hub's nor a site's agent"
    if membership is None:
        return f"{caller.namespace} is no member; the hub's people accept it: concordat site accept {caller.namespace}"
    if membership.spec.suspended:
        return f"the Membership of {caller.namespace} is suspended"
    if any(_of_a_site(federation, caller.namespace, what) for federation in membership.spec.federations):
        return None
    return f"site {caller.namespace} may not {what.act} {what.repository}"


def round_of(repository: str) -> str | None:
    """Return the uid of the round that a site's slot belongs to; None if the repository is no slot."""
    parts = repository.split("/")
    slot = len(parts) == 4 and repository == site_repository(parts[0], parts[2], parts[3])
    return parts[2] if slot else None


def _of_the_hub(account: str, what: Asked) -> bool:
    parts = what.repository.split("/")
    federation, rest = parts[0], parts[1:]
    if account == OPERATOR:
        return True
    if account == PUBLISHER:
        own = (base_repository(federation), adapters_repository(federation))
        return what.act in (Act.PULL, Act.PUSH) and what.repository in own
    # The aggregator reads what sites sent, and writes what it made of it.
    made = what.repository == adapters_repository(federation) or (
        len(rest) == 2 and what.repository == round_repository(federation, rest[1])
    )
    return what.act is Act.PULL or (what.act is Act.PUSH and made)


def _of_a_site(federation: str, site: str, what: Asked) -> bool:
    """Return whether it is the site's own, or what the hub has for all of the federation to read."""
    repository, parts = what.repository, what.repository.split("/")
    its_round = parts[2] if len(parts) > 2 else ""
    own = {decisions_repository(federation, site)}
    shared = {at(federation) for at in (base_repository, adapters_repository, lineage_repository, releases_repository)}
    if its_round:
        own.add(site_repository(federation, its_round, site))
        shared.add(round_repository(federation, its_round))
    if what.act is Act.PULL:
        return repository in own | shared
    return what.act is Act.PUSH and repository in own
