"""A site's policy, of which a test says only what it is about."""

from __future__ import annotations

import json
from typing import Any

from concordat_agent.policy import SitePolicy


def policy(
    image: str, consent: dict[str, Any] | None = None, judging: dict[str, Any] | None = None, **rules: Any
) -> SitePolicy:
    """A policy that lets `image` train and measure; the others are members by their names on the wire."""
    limits = {"maxSteps": 500, "maxWallSeconds": 3600, "allowedImages": [image], **(consent or {})}
    judges = {"image": image, "minQualityPpm": 1, **(judging or {})}
    return SitePolicy.from_json(json.dumps({"consent": limits, "judging": judges, **rules}))
