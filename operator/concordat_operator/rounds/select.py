"""Step 1: the parent, the image, and the sites that are asked; or why the round cannot start."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass

from concordat.api import ConditionType, FederationRound, Reason, Release, ReleaseChannel, Role, Site, find, is_true
from concordat.api.aggregation_rules import shortage
from concordat_operator.channels.target import target_of
from concordat_operator.finding import Finding
from concordat_operator.members.plan import Member
from concordat_operator.text import count, names


@dataclass(frozen=True)
class Selection:
    """The material of a contract."""

    parent: Release
    members: tuple[Member, ...]
    """Sorted by name."""
    image: str


def select(
    round_: FederationRound,
    *,
    sites: Sequence[Site],
    members: Mapping[str, Member],
    releases: Sequence[Release],
    channels: Sequence[ReleaseChannel],
    rounds: Sequence[FederationRound] = (),
    default_image: str | None,
    quarantined: Container[str] = (),
) -> Selection | Finding:
    """Return the parent, the sites and the image of the round, or why it cannot start.

    `releases`, `channels` and `rounds` are the hub's; `sites` are all there are, `members` those of them whose word
    counts, and `quarantined` names some.
    """
    spec = round_.spec
    other = min((r.metadata.name for r in rounds if _open_beside(r, round_)), default=None)
    if other is not None:
        return Finding(
            Reason.ANOTHER_ROUND_OPEN,
            f"Round {other!r} of federation {spec.federation!r} is open; this one is contracted when it has ended, "
            "from what was released then.",
        )
    parent = _parent(round_, releases, channels)
    if isinstance(parent, Finding):
        return parent
    image = spec.recipe.image or default_image
    if image is None:
        return Finding(
            Reason.NO_IMAGE,
            "No image for the training Job: set spec.recipe.image, or learningImage of the operator's chart.",
        )
    if spec.screening.canary is not None and default_image is None:
        return Finding(
            Reason.NO_IMAGE,
            "No image for the canary check: set learningImage of the operator's chart. It runs beside the aggregator, "
            "so it is the hub's own, never the contract's.",
        )
    if evaluator(spec.federation, sites, members) is None:
        return Finding(
            Reason.NO_EVALUATOR,
            f"No member with role Evaluator takes part in federation {spec.federation!r} and is Ready: the candidate "
            "could not be judged. Install one with the concordat-site chart, and accept it.",
        )
    fit = [members[site.metadata.name] for site in sites if eligible(round_, site, members)]
    quarantined_sites = sorted(member.name for member in fit if member.name in quarantined)
    selection = _enough(round_, parent, image, [member for member in fit if member.name not in quarantined])
    if isinstance(selection, Finding) and quarantined_sites:
        return Finding(selection.reason, f"{selection.message} Quarantined: {names(quarantined_sites)}.")
    return selection


def _enough(round_: FederationRound, parent: Release, image: str, fit: Sequence[Member]) -> Selection | Finding:
    spec = round_.spec
    if not fit:
        wanted = ",".join(f"{k}={v}" for k, v in sorted(spec.sites.match_labels.items())) or "any labels"
        return Finding(
            Reason.NO_ELIGIBLE_SITE,
            f"No member takes part in federation {spec.federation!r}, has {wanted} and is Ready. "
            "See kubectl get sites -A --show-labels.",
        )
    chosen = tuple(sorted(fit, key=lambda member: member.name)[: spec.sites.max_sites])
    if len(chosen) < spec.quorum:
        return Finding(
            Reason.QUORUM_UNREACHABLE,
            f"spec.quorum is {spec.quorum}, but {count(len(chosen), 'site')} can take part "
            f"({names(member.name for member in chosen)}): lower it, or bring more sites to Ready.",
        )
    policy = spec.aggregation
    lack = shortage(policy.rule, policy.max_faulty_sites, len(chosen))
    if lack is not None:
        return Finding(Reason.TOO_MANY_FAULTS, f"{lack}: lower it, or bring more sites to Ready.")
    if policy.reference_site is not None and policy.reference_site not in {member.name for member in chosen}:
        return Finding(
            Reason.REFERENCE_MISSING,
            f"aggregation.referenceSite {policy.reference_site!r} cannot take part: bring it to Ready.",
        )
    return Selection(parent, chosen, image)


def _open_beside(other: FederationRound, round_: FederationRound) -> bool:
    """Return whether the other round of the federation has a contract and has not ended."""
    same = other.spec.federation == round_.spec.federation and other.metadata.uid != round_.metadata.uid
    return same and other.status.contract is not None and not other.ended


def eligible(round_: FederationRound, site: Site, members: Mapping[str, Member]) -> bool:
    """Return whether a site is asked to take part."""
    wanted = round_.spec.sites.match_labels.items()
    member = _of(round_.spec.federation, site, members)
    return member is not None and member.role is Role.TRAINER and wanted <= site.metadata.labels.items()


def evaluator(federation: str, sites: Sequence[Site], members: Mapping[str, Member]) -> Site | None:
    """Return the evaluator of a federation: the first by name that is present."""
    found = ((site, _of(federation, site, members)) for site in sites)
    fit = [site for site, member in found if member is not None and member.role is Role.EVALUATOR]
    return min(fit, key=lambda site: site.metadata.name, default=None)


def _of(federation: str, site: Site, members: Mapping[str, Member]) -> Member | None:
    """Return the member that a site is, if both it and the hub name the federation and its agent is heard."""
    member = members.get(site.metadata.name)
    fit = (
        member is not None
        and federation in member.federations
        and site.federation(federation) is not None
        and site.metadata.deletion_timestamp is None
        and is_true(site.status.conditions, ConditionType.READY)
    )
    return member if fit else None


def _parent(
    round_: FederationRound, releases: Sequence[Release], channels: Sequence[ReleaseChannel]
) -> Release | Finding:
    spec = round_.spec
    if spec.parent.channel_ref is not None:
        channel = next((c for c in channels if c.metadata.name == spec.parent.channel_ref.name), None)
        where = f"spec.parent.channelRef: ReleaseChannel {spec.parent.channel_ref.name!r}"
        if channel is None:
            return Finding(Reason.PARENT_NOT_FOUND, f"{where} does not exist in this namespace: create it.")
        # Its status tells of a release when all sites were offered it: too late for a round that waited for that one.
        target, shown = target_of(channel, releases), channel.status.release
        if isinstance(target, Release):
            name = target.metadata.name
        elif shown is not None:
            name = shown.name
        else:
            return Finding(Reason.PARENT_NOT_FOUND, f"{where} points to no release: {target.message}")
    else:
        name = spec.parent.release_ref.name if spec.parent.release_ref else ""
        where = "spec.parent.releaseRef"
    release = next((r for r in releases if r.metadata.name == name), None)
    if release is None or release.metadata.deletion_timestamp is not None:
        return Finding(Reason.PARENT_NOT_FOUND, f"{where}: Release {name!r} does not exist in this namespace.")
    if release.spec.federation != spec.federation:
        return Finding(
            Reason.PARENT_NOT_FOUND,
            f"{where}: Release {name!r} belongs to federation {release.spec.federation!r}, "
            f"the round to {spec.federation!r}.",
        )
    approved = find(release.status.conditions, ConditionType.APPROVED)
    if approved is None or not approved.is_true:
        why = approved.message if approved is not None else "it has not been looked at yet."
        unreadable = approved is not None and approved.reason == Reason.ARTIFACT_UNREADABLE
        reason = Reason.PARENT_NOT_FOUND if unreadable else Reason.PARENT_NOT_APPROVED
        return Finding(reason, f"{where}: Release {name!r} is not approved: {why}")
    return release
