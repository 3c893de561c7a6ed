"""The history of one federation: which ended rounds, old releases and orphaned copies go. All the rest stays.

A release stays while it is among the newest approved, a channel points to it, an open round starts from it or from the
one made from it, or a site uses it or used it last. A round stays while it is among the last to end, or an approved
release that stays names it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from concordat.api import ConditionType, FederationRound, Release, ReleaseChannel, Site, find, is_true
from concordat.api.resource import Resource
from concordat.api.types import ANNOTATION_KEEP, ArtifactRef
from concordat_operator.rounds.plan import ancestor, approved

_TOOLS = frozenset(
    {
        "argocd.argoproj.io/tracking-id",
        "argocd.argoproj.io/instance",
        "app.kubernetes.io/instance",
        "kustomize.toolkit.fluxcd.io/name",
        "helm.toolkit.fluxcd.io/name",
        "meta.helm.sh/release-name",
    }
)
"""Labels and annotations by which the tools mark what they apply."""


@dataclass(frozen=True)
class ObservedHistory:
    """All that a decision about a federation's history depends on, apart from the limit."""

    hub: str
    """The hub's namespace."""
    rounds: Sequence[FederationRound]
    """The federation's rounds in the hub."""
    releases: Sequence[Release]
    """The federation's releases: the hub's, and the copies in every other namespace."""
    channels: Sequence[ReleaseChannel]
    """The federation's channels in the hub."""
    sites: Sequence[Site]
    """All sites."""
    with_updates: frozenset[str] = frozenset()
    """The rounds that Updates are still there of, by uid."""
    parents: frozenset[str] = frozenset()
    """The releases that the contracts of open rounds start from, by name."""


@dataclass(frozen=True)
class Surplus:
    """The objects that go."""

    rounds: tuple[FederationRound, ...] = ()
    emptied: tuple[FederationRound, ...] = ()
    """Rounds that stay because a tool applies them again and again, and whose Updates go."""
    releases: tuple[Release, ...] = ()
    """Approved releases of the hub."""
    copies: tuple[Release, ...] = ()
    """Copies whose release in the hub goes or has gone."""

    def __bool__(self) -> bool:
        """Return whether anything goes."""
        return bool(self.rounds or self.emptied or self.releases or self.copies)


def surplus(observed: ObservedHistory, limit: int) -> Surplus:
    """Return what goes when `limit` ended rounds, and as many approved releases, are kept."""
    mine = [r for r in observed.releases if r.metadata.namespace == observed.hub]
    staying = _staying_releases(observed, mine, limit)
    going = tuple(r for r in mine if _made_here(r) and approved(r) and r.metadata.name not in staying and _living(r))
    past = _surplus_rounds(observed, mine, staying, limit)
    return Surplus(
        rounds=tuple(r for r in past if not applied_by_a_tool(r)),
        emptied=tuple(r for r in past if applied_by_a_tool(r) and r.metadata.uid in observed.with_updates),
        releases=going,
        copies=_surplus_copies(observed, {r.metadata.name for r in mine} - {r.metadata.name for r in going}),
    )


def in_use(releases: Iterable[Release], sites: Iterable[Site], hub: str) -> set[str]:
    """Return the releases that a site uses or used last, by name: those it can be asked to compare with or go back to.

    A site adopts in the order of sequences, so the release before its champion is the next lower one that it adopted.
    """
    adopted: dict[str, list[Release]] = defaultdict(list)
    for release in releases:
        if release.metadata.namespace != hub and is_true(release.status.conditions, ConditionType.ADOPTED):
            adopted[release.metadata.namespace].append(release)
    names = {site.status.champion.release for site in sites if site.status.champion is not None}
    for copies in adopted.values():
        ordered = sorted(copies, key=lambda copy: copy.spec.sequence)
        # Sites write these conditions: at most two per site, so that no site can keep everything for ever.
        names |= {copy.metadata.name for copy in ordered[-2:]}
    return names


def applied_by_a_tool(obj: Resource) -> bool:
    """Return whether Argo CD, Flux or Helm keeps the object: a round that they apply again runs again."""
    return not _TOOLS.isdisjoint({*obj.metadata.labels, *obj.metadata.annotations})


def named_digests(
    rounds: Iterable[FederationRound], releases: Iterable[Release], sites: Iterable[Site]
) -> frozenset[str]:
    """Return the digests of the artifacts that these objects name: they must not be deleted."""
    refs: list[ArtifactRef | None] = []
    for round_ in rounds:
        status, aggregate = round_.status, round_.status.aggregate
        refs += [status.contract.artifact] if status.contract is not None else []
        refs += [aggregate.report, aggregate.adapter, aggregate.lineage] if aggregate is not None else []
    for release in releases:
        spec, decision = release.spec, release.status.decision
        refs += [spec.base, spec.adapter, spec.parent, spec.lineage, release.status.lineage]
        refs += [decision.statement] if decision is not None else []
    refs += [site.status.champion.artifact for site in sites if site.status.champion is not None]
    return frozenset(ref.digest for ref in refs if ref is not None)


def _staying_releases(observed: ObservedHistory, mine: Sequence[Release], limit: int) -> set[str]:
    newest = sorted((r for r in mine if approved(r)), key=lambda r: (r.spec.sequence, r.metadata.name))[-limit:]
    pointed = {name for channel in observed.channels for name in _pointed(channel)}
    wanted = {
        round_.spec.parent.release_ref.name
        for round_ in observed.rounds
        if not round_.ended and round_.spec.parent.release_ref is not None
    }
    # An aggregator reads the adapters of the two releases before the parent.
    starts = [r for r in mine if r.metadata.name in wanted | observed.parents]
    before = {found.metadata.name for r in starts if (found := ancestor(r, mine)) is not None}
    chosen = {r.metadata.name for r in mine if _kept(r)}
    used = in_use(observed.releases, observed.sites, observed.hub)
    return {r.metadata.name for r in newest} | pointed | wanted | before | chosen | used | observed.parents


def _surplus_rounds(
    observed: ObservedHistory, mine: Sequence[Release], staying: set[str], limit: int
) -> tuple[FederationRound, ...]:
    naming = {
        release.spec.round_ref.uid
        for release in mine
        if release.spec.round_ref is not None and (approved(release) or release.metadata.name in staying)
    }
    past = sorted((r for r in observed.rounds if r.ended and _living(r)), key=_end)
    return tuple(r for r in past[:-limit] if r.metadata.uid not in naming and not _kept(r))


def _surplus_copies(observed: ObservedHistory, living: set[str]) -> tuple[Release, ...]:
    """Return the copies that this hub made of releases which are not among its living ones; never one that is used."""
    used = in_use(observed.releases, observed.sites, observed.hub)
    return tuple(
        copy
        for copy in observed.releases
        if copy.metadata.namespace != observed.hub
        and copy.spec.round_ref is not None
        and copy.spec.round_ref.namespace == observed.hub
        and copy.metadata.name not in living | used
        and _living(copy)
    )


def _pointed(channel: ReleaseChannel) -> list[str]:
    followed = [channel.status.release.name] if channel.status.release is not None else []
    return followed + ([channel.spec.release] if channel.spec.release is not None else [])


def _end(round_: FederationRound) -> tuple[datetime, str]:
    succeeded = find(round_.status.conditions, ConditionType.SUCCEEDED)
    if succeeded is None:
        raise ValueError("only a round that has ended has an end")
    return (succeeded.last_transition_time, round_.metadata.name)


def _made_here(release: Release) -> bool:
    """Return whether a round made the release. The start of a federation is people's."""
    return release.spec.round_ref is not None


def _living(obj: Resource) -> bool:
    return obj.metadata.deletion_timestamp is None


def _kept(obj: Resource) -> bool:
    return obj.metadata.annotations.get(ANNOTATION_KEEP) == "true"
