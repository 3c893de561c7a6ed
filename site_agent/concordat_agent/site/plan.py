"""What the agent says of its site, and which folders it keeps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from concordat.api import Site
from concordat.api.site import AgentStatus, Champion, SiteStatus


def status(site: Site, agent: AgentStatus, champions: Mapping[str, Champion]) -> SiteStatus:
    """Return the part of the Site's status that is the agent's; `champions` are those in use, by federation.

    The status has room for one champion: that of the first of the site's federations that has one.
    """
    shown = next((champions[f.name] for f in site.spec.federations if f.name in champions), None)
    return SiteStatus(agent=agent, champion=shown)


def folders(updates: Iterable[str], releases: Iterable[str], champions: Iterable[Champion]) -> set[str]:
    """Return the Jobs whose folders are kept, from the names of living objects: theirs, each champion and the one
    before it.
    """
    return {*updates, *releases, *(champion.release for champion in champions)}
