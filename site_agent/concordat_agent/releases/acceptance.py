"""Whether a release, or an evaluator's candidate, may be measured at the site at all, by the site's own rules."""

from __future__ import annotations

from collections.abc import Callable

from concordat.api import Release, Site
from concordat_agent.policy import SitePolicy, base_objection, runtime_class_objection

Objection = Callable[[SitePolicy, Release, Site], str | None]
"""Why nothing of the release is loaded here, without a full stop; None if there is nothing against it."""


def _federation(policy: SitePolicy, release: Release, site: Site) -> str | None:
    federation = release.spec.federation
    return None if site.federation(federation) else f"federation {federation!r} is not among this site's federations"


def _judging_image(policy: SitePolicy, release: Release, site: Site) -> str | None:
    shown, pinned = site.spec.judging_image, policy.judging.image
    if shown == pinned:
        return None
    return f"spec.judgingImage of the Site is {shown}, its policy pins {pinned}: install both from one values file"


def _base(policy: SitePolicy, release: Release, site: Site) -> str | None:
    return base_objection(policy, release.spec.base)


def _runtime_class(policy: SitePolicy, release: Release, site: Site) -> str | None:
    return runtime_class_objection(policy, release.spec.runtime_class_name)


RELEASE_CHECKS: tuple[Objection, ...] = (_federation, _judging_image, _base, _runtime_class)
"""All of them are asked, and the refusal names every objection."""


def refusal(policy: SitePolicy, release: Release, site: Site) -> str | None:
    """Return everything that is against measuring the release here, without a full stop; None if nothing is."""
    objections = [text for check in RELEASE_CHECKS if (text := check(policy, release, site)) is not None]
    return "; ".join(objections) or None
