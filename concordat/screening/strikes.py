"""How many suspicions of poisoning put a site into quarantine, and for how long one counts."""

from __future__ import annotations

from datetime import timedelta

STRIKES = 2
"""One is no proof: an honest update in thousands is suspected, and two colluders can aim at a site."""
LASTS = timedelta(days=30)
