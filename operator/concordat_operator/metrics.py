"""The operator's metrics. Label values come from a fixed set, never from user input."""

from __future__ import annotations

from prometheus_client import Counter

ROUNDS = Counter("concordat_rounds", "Rounds that ended, by the Succeeded condition's reason.", ["reason"])
VERDICTS = Counter(
    "concordat_update_verdicts", "Updates that were judged, by the Verified condition's reason.", ["reason"]
)
ALERTS = Counter("concordat_poisoning_alerts", "Updates that raised an alert, by detector.", ["alert"])
SUSPICIONS = Counter("concordat_poisoning_suspicions", "Updates suspected of poisoning; a second one quarantines.")
ATTESTATIONS = Counter(
    "concordat_attestations", "Consents checked, by the AttestationValid condition's reason.", ["reason"]
)
JOBS = Counter("concordat_jobs_launched", "Jobs launched in site namespaces.", ["kind"])
RELEASES = Counter(
    "concordat_releases", "Releases that were decided for good, by the Approved condition's reason.", ["reason"]
)
