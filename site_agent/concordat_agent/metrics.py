"""The agent's metrics. Label values come from a fixed set, except the federations, which the Site names."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

CONSENTS = Counter(
    "concordat_agent_consents", "Answers to round contracts: the Consented condition's reason.", ["answer"]
)
SUBMISSIONS = Counter(
    "concordat_agent_submissions", "Ends of local training: the Submitted condition's reason.", ["result"]
)
DECISIONS = Counter(
    "concordat_agent_decisions", "Decisions about releases and candidates: the answer condition's reason.", ["result"]
)
LOCAL_QUALITY = Gauge(
    "concordat_agent_local_quality_ratio",
    "Accuracy last measured on this site's validation data; phase: training or evaluation.",
    ["federation", "phase", "model"],
)
CHAMPION_SEQUENCE = Gauge(
    "concordat_agent_champion_sequence", "Sequence of the release in use; absent without one.", ["federation"]
)
CLOCK_SKEW = Gauge(
    "concordat_agent_clock_skew_seconds",
    "How far the site's clock is ahead of the API server's, to a second; deadlines are judged by the latter.",
)
