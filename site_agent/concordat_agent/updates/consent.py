"""Whether the site takes part in a round: the contract against the site's own rules."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from concordat.api import Reason
from concordat.protocol.contract import Contract
from concordat_agent.policy import Answer, SitePolicy, base_objection, runtime_class_objection


@dataclass(frozen=True)
class Request:
    """A contract that asks for the site's consent, and what the site's rules compare it with."""

    contract: Contract
    federations: Collection[str]
    """Those that the site takes part in."""
    at: datetime
    """When the site answers, or answered."""
    deadline: datetime
    """Until when it may answer."""
    spent_seconds: int = 0
    """Wall-clock seconds of the consents that it gave in the 24 hours before."""


Objection = Callable[[SitePolicy, Request], str | None]
"""Why the site does not take part in the contract's round, without a full stop; None if there is nothing against it."""


def _federation(policy: SitePolicy, request: Request) -> str | None:
    asked = request.contract.federation
    return None if asked in request.federations else f"federation {asked!r} is not among this site's federations"


def _base(policy: SitePolicy, request: Request) -> str | None:
    return base_objection(policy, request.contract.base)


def _runtime_class(policy: SitePolicy, request: Request) -> str | None:
    return runtime_class_objection(policy, request.contract.runtime_class_name)


def _steps(policy: SitePolicy, request: Request) -> str | None:
    asked, most = request.contract.budget.max_steps, policy.consent.max_steps
    return f"budget.maxSteps {asked} exceeds this site's {most}" if asked > most else None


def _seconds(policy: SitePolicy, request: Request) -> str | None:
    asked, most = request.contract.budget.max_wall_seconds, policy.consent.max_wall_seconds
    return f"budget.maxWallSeconds {asked} exceeds this site's {most}" if asked > most else None


def _seconds_per_day(policy: SitePolicy, request: Request) -> str | None:
    asked, most = request.contract.budget.max_wall_seconds, policy.consent.max_wall_seconds_per_day
    if most is not None and request.spent_seconds + asked > most:
        return (
            f"budget.maxWallSeconds {asked}, with {request.spent_seconds} consented to in the 24 hours before, exceeds "
            f"this site's maxWallSecondsPerDay {most}"
        )
    return None


def _hours(policy: SitePolicy, request: Request) -> str | None:
    hours = policy.consent.hours
    if hours is None or opening(policy, request) is not None:
        return None
    shown = hours.shown(request.at)
    return f"{shown} is outside this site's hours, {hours}, and it is too late to wait for them"


def _image(policy: SitePolicy, request: Request) -> str | None:
    image, allowed = request.contract.image, policy.consent.allowed_images
    return None if image in allowed else f"image {image} is not among this site's {len(allowed)} allowedImages"


def _clip_norm(policy: SitePolicy, request: Request) -> str | None:
    asked, most = request.contract.screening.clip_norm, policy.consent.max_clip_norm
    if most is not None and Decimal(asked) > Decimal(most):
        return f"screening.clipNorm {asked} exceeds this site's {most}"
    return None


CONSENT_CHECKS: tuple[Objection, ...] = (
    _federation,
    _base,
    _runtime_class,
    _steps,
    _seconds,
    _seconds_per_day,
    _hours,
    _image,
    _clip_norm,
)
"""All of them are asked, and the answer names every objection."""


def opening(policy: SitePolicy, request: Request) -> datetime | None:
    """Return the first moment at which the site's hours let it answer; None if there is none before the deadline."""
    hours = policy.consent.hours
    return request.at if hours is None else hours.next_opening(request.at, request.deadline)


def consent(policy: SitePolicy, request: Request) -> Answer:
    """Return whether the site takes part in a round whose contract is known to be genuine.

    The reason is Waiting if nothing but the hour is against it, and the site's hours begin before the deadline.
    """
    objections = [text for check in CONSENT_CHECKS if (text := check(policy, request)) is not None]
    if objections:
        return Answer.no(Reason.POLICY_REFUSED, "; ".join(objections) + ".")
    begin = opening(policy, request)
    if begin is not None and begin > request.at:
        return Answer.no(
            Reason.WAITING, f"This site consents from {policy.consent.hours}: it answers at {begin:%Y-%m-%d %H:%MZ}."
        )
    return Answer.yes(Reason.CONSENTED, "The contract is genuine and within this site's policy.")
