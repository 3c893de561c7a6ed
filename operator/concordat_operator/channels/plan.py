"""A ReleaseChannel: which release it points to, who is to get it, and what became of it there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from concordat.api import ConditionSet, ConditionType, Reason, Release, ReleaseChannel, Role, Site, is_true
from concordat.api.release import ReleaseChannelStatus, answer
from concordat.api.types import NameRef
from concordat_operator.channels.target import target_of
from concordat_operator.finding import Finding
from concordat_operator.releases.plan import rollout
from concordat_operator.text import names


@dataclass(frozen=True)
class ObservedChannel:
    """All that a decision about a channel depends on."""

    channel: ReleaseChannel
    target: Release | Finding
    """The release it points to, or why it points to none."""
    subscribers: tuple[Site, ...]
    """The sites that follow it, by name."""
    copies: tuple[Release, ...]
    """The copies of the target in their namespaces."""
    later: tuple[Site, ...]
    """The subscribers that use a release of a higher sequence than the target's."""

    @property
    def lacking(self) -> tuple[Site, ...]:
        """Return the subscribers that have no copy yet and are to get one."""
        if isinstance(self.target, Finding) or self.target.spec.sequence == 0:
            return ()
        have = {copy.metadata.namespace for copy in self.copies}
        return tuple(s for s in self.subscribers if s.metadata.namespace not in have and reachable(s))


def observe(channel: ReleaseChannel, releases: Sequence[Release], sites: Sequence[Site]) -> ObservedChannel:
    """Return the facts about a channel. `releases` are all there are, of the hub and of the sites."""
    hub = channel.metadata.namespace
    target = target_of(channel, [r for r in releases if r.metadata.namespace == hub])
    subscribers = tuple(sorted((s for s in sites if follows(s, channel)), key=lambda s: s.metadata.name))
    namespaces = {s.metadata.namespace for s in subscribers}
    name = None if isinstance(target, Finding) else target.metadata.name
    copies = tuple(r for r in releases if r.metadata.namespace in namespaces and r.metadata.name == name)
    ahead = _use_later(target, releases)
    later = tuple(s for s in subscribers if s.metadata.namespace in ahead)
    return ObservedChannel(channel, target, subscribers, copies, later)


def follows(site: Site, channel: ReleaseChannel) -> bool:
    """Return whether a site subscribes to the channel."""
    return (
        site.spec.role is Role.TRAINER
        and site.spec.channel == channel.metadata.name
        and site.federation(channel.spec.federation) is not None
        and site.metadata.deletion_timestamp is None
    )


def reachable(site: Site) -> bool:
    """Return whether the site's key is accepted, so that its answer can be believed."""
    return is_true(site.status.conditions, ConditionType.ACCEPTED)


def describe(observed: ObservedChannel, now: ConditionSet, generation: int) -> ReleaseChannelStatus:
    """Return the channel's status; `now` holds its present conditions."""
    target = observed.target
    now.drop(ConditionType.RECONCILING)
    if isinstance(target, Finding):
        now.set(ConditionType.READY, False, target.reason, target.message)
        return ReleaseChannelStatus(
            observed_generation=generation,
            conditions=now.list(),
            release=None,
            sequence=None,
            rollout=None,
            summary=None,
        )
    later = {site.metadata.namespace for site in observed.later}
    in_use = sum(_adopted(copy) and copy.metadata.namespace not in later for copy in observed.copies)
    done = rollout(observed.copies).model_copy(update={"adopted": in_use})
    name = target.metadata.name
    decided = {c.metadata.namespace for c in observed.copies if answer(c.status.conditions) is not None}
    undecided = [s.metadata.name for s in observed.subscribers if s.metadata.namespace not in decided]
    if observed.later:
        now.set(ConditionType.READY, False, Reason.CANNOT_ROLL_BACK, _why_not_back(target, observed.later))
    elif target.spec.sequence == 0:
        now.set(
            ConditionType.READY,
            True,
            Reason.GENESIS,
            f"{name} is the start of the federation; it is not offered to sites.",
        )
    elif undecided:
        message = f"{name}: waiting for {names(undecided)} to decide."
        now.set(ConditionType.READY, False, Reason.IN_PROGRESS, message)
        now.set(ConditionType.RECONCILING, True, Reason.IN_PROGRESS, message)
    else:
        now.set(ConditionType.READY, True, Reason.ROLLED_OUT, f"{name}: {in_use} use it, {done.rejected} rejected it.")
    return ReleaseChannelStatus(
        observed_generation=generation,
        conditions=now.list(),
        release=NameRef(name=name),
        sequence=target.spec.sequence,
        rollout=done,
        summary=f"{in_use} use it, {done.rejected} rejected, of {len(observed.subscribers)}",
    )


def _use_later(target: Release | Finding, releases: Sequence[Release]) -> set[str]:
    """Return the namespaces whose champion in the target's federation has a higher sequence than the target.

    A site adopts in the order of sequences, so its champion is the highest that it adopted.
    """
    if isinstance(target, Finding):
        return set()
    return {
        release.metadata.namespace
        for release in releases
        if release.spec.federation == target.spec.federation
        and release.spec.sequence > target.spec.sequence
        and _adopted(release)
    }


def _adopted(copy: Release) -> bool:
    return is_true(copy.status.conditions, ConditionType.ADOPTED)


def _why_not_back(target: Release, later: Sequence[Site]) -> str:
    name = target.metadata.name
    return (
        f"{name} has sequence {target.spec.sequence}, and {names(s.metadata.name for s in later)} already use a higher "
        "one: sites do not go back to an earlier release yet. Point the channel to what they use, or run a round "
        f"with parent.releaseRef {name}: its release gets a higher sequence."
    )
