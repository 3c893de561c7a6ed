"""The release that a channel points to."""

from __future__ import annotations

from collections.abc import Sequence

from concordat.api import ConditionType, Reason, Release, ReleaseChannel, is_true
from concordat_operator.finding import Finding


def target_of(channel: ReleaseChannel, releases: Sequence[Release]) -> Release | Finding:
    """Return the release that a channel points to, or why it points to none. `releases` are the hub's.

    Its status says the same, later: when the release was offered to all sites.
    """
    spec = channel.spec
    mine = [r for r in releases if r.spec.federation == spec.federation and r.metadata.deletion_timestamp is None]
    if spec.release is not None:
        pinned = next((r for r in mine if r.metadata.name == spec.release), None)
        if pinned is None:
            return Finding(
                Reason.NO_RELEASE,
                f"spec.release: Release {spec.release!r} of federation {spec.federation!r} does not exist here.",
            )
        if not is_true(pinned.status.conditions, ConditionType.APPROVED):
            return Finding(
                Reason.RELEASE_NOT_APPROVED, f"spec.release: Release {spec.release!r} is not approved; pin another."
            )
        return pinned
    approved = [r for r in mine if is_true(r.status.conditions, ConditionType.APPROVED)]
    newest = max(approved, key=lambda r: (r.spec.sequence, r.metadata.name), default=None)
    return newest or Finding(
        Reason.NO_RELEASE,
        f"No Release of federation {spec.federation!r} is approved yet; a federation starts with one of sequence 0.",
    )
