"""Whether the site takes part in a round: the contract against the site's own rules."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal

from concordat.api import Reason, Site
from concordat.protocol.contract import Contract
from concordat_agent.policy import Answer, SitePolicy

Objection = Callable[[SitePolicy, Contract, Site], str | None]
"""Why the site does not take part in the contract's round, without a full stop; None if there is nothing against it."""


def _federation(policy: SitePolicy, contract: Contract, site: Site) -> str | None:
    if site.federation(contract.federation) is None:
        return f"federation {contract.federation!r} is not among this site's federations"
    return None


def _steps(policy: SitePolicy, contract: Contract, site: Site) -> str | None:
    asked, most = contract.budget.max_steps, policy.consent.max_steps
    return f"budget.maxSteps {asked} exceeds this site's {most}" if asked > most else None


def _seconds(policy: SitePolicy, contract: Contract, site: Site) -> str | None:
    asked, most = contract.budget.max_wall_seconds, policy.consent.max_wall_seconds
    return f"budget.maxWallSeconds {asked} exceeds this site's {most}" if asked > most else None


def _image(policy: SitePolicy, contract: Contract, site: Site) -> str | None:
    allowed = policy.consent.allowed_images
    return (
        None
        if contract.image in allowed
        else f"image {contract.image} is not among this site's {len(allowed)} allowedImages"
    )


def _clip_norm(policy: SitePolicy, contract: Contract, site: Site) -> str | None:
    asked, most = contract.screening.clip_norm, policy.consent.max_clip_norm
    if most is not None and Decimal(asked) > Decimal(most):
        return f"screening.clipNorm {asked} exceeds this site's {most}"
    return None


CONSENT_CHECKS: tuple[Objection, ...] = (_federation, _steps, _seconds, _image, _clip_norm)
"""All of them are asked, and the answer names every objection."""


def consent(policy: SitePolicy, contract: Contract, site: Site) -> Answer:
    """Return whether the site takes part in a round whose contract is known to be genuine."""
    objections = [text for check in CONSENT_CHECKS if (text := check(policy, contract, site)) is not None]
    if objections:
        return Answer.no(Reason.POLICY_REFUSED, "; ".join(objections) + ".")
    return Answer.yes(Reason.CONSENTED, "The contract is genuine and within this site's policy.")
