"""The custom resources of Concordat, their conditions and their reasons. Pure: no I/O."""

from concordat.api.conditions import (
    NOT_STARTED_REASONS,
    PENDING_REASONS,
    RETRIED_REASONS,
    Condition,
    ConditionSet,
    ConditionStatus,
    ConditionType,
    Reason,
    find,
    first_failed,
    is_false,
    is_pending,
    is_settled,
    is_true,
)
from concordat.api.membership import Membership
from concordat.api.release import Release, ReleaseChannel
from concordat.api.resource import Resource
from concordat.api.round import FederationRound
from concordat.api.site import Role, Site
from concordat.api.update import Update

KINDS: tuple[type[Resource], ...] = (FederationRound, Membership, Site, Update, Release, ReleaseChannel)

__all__ = [
    "KINDS",
    "NOT_STARTED_REASONS",
    "PENDING_REASONS",
    "RETRIED_REASONS",
    "Condition",
    "ConditionSet",
    "ConditionStatus",
    "ConditionType",
    "FederationRound",
    "Membership",
    "Reason",
    "Release",
    "ReleaseChannel",
    "Resource",
    "Role",
    "Site",
    "Update",
    "find",
    "first_failed",
    "is_false",
    "is_pending",
    "is_settled",
    "is_true",
]
