"""Who takes part in the demo federation: the names of the namespaces."""

from __future__ import annotations

HUB = "concordat"
EVALUATOR = "evaluator"
CANARY = "canary"
"""The claim with the hub's examples for the canary check, and the part of the demo's data on it."""
SITES = ("site-a", "site-b", "site-c", "site-d", "site-e")
HOSTILE = "site-d"
