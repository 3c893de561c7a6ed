"""What is found out about a site before its update counts, and how far that can be believed."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from concordat.api.types import Model, Sha256


class Evidence(StrEnum):
    """One kind of evidence that the hub's gateway appraises."""

    SERVICE_ACCOUNT = "ServiceAccount"
    """The API server takes the token for one of the site's agent, made for the gateway."""
    SITE_KEY = "SiteKey"
    """The key that the contract names for the site signed the gateway's fresh nonce."""
    SITE_POLICY = "SitePolicy"
    """The digest of the policy by which the site decides, as its agent says."""
    BASE_PACKAGE = "BasePackage"
    """The base package that the site staged is the contract's, as its agent says."""
    AGENT_POD = "AgentPod"
    """The agent's pod, as the API server reports it: its shape, and the image of each container by digest."""
    TRAINER_IMAGE = "TrainerImage"
    """The image that the training Job's pod ran, as the API server reports it, is the contract's."""


class Tier(StrEnum):
    """How far the evidence can be believed. Neither tier proves what code ran: only hardware could."""

    SELF_REPORTED = "SelfReported"
    """The site's agent says it, signed with the site's key."""
    PLATFORM_OBSERVED = "PlatformObserved"
    """The API server of the hub's cluster, and the kubelets that report to it, say it too."""

    @property
    def required(self) -> frozenset[Evidence]:
        """Return the kinds of evidence that an update's grant must rest on."""
        said = {Evidence.SERVICE_ACCOUNT, Evidence.SITE_KEY, Evidence.SITE_POLICY, Evidence.BASE_PACKAGE}
        seen = {Evidence.AGENT_POD, Evidence.TRAINER_IMAGE} if self is Tier.PLATFORM_OBSERVED else set()
        return frozenset(said | seen)


class Attestation(Model):
    """What a site must show of itself, and for how long the grant to train lasts."""

    least_tier: Tier = Tier.PLATFORM_OBSERVED
    """PlatformObserved: the agent's pod and the trainer's are looked at through the API server. SelfReported: what a
    site's agent signs suffices, as where the agent runs in another cluster than the hub."""
    grant_seconds: Annotated[int, Field(ge=60, le=604_800)] = 1800
    """How long after its grant a site's training Job may begin. Longer where Jobs wait in a queue."""


class AttestationResult(Model):
    """What the hub's gateway found of a site when it took the site's update."""

    tier: Tier
    """How far the evidence can be believed."""
    grant: Sha256
    """Id of the signed grant, which holds the evidence."""
