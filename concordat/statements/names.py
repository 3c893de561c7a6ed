"""The names in statements: kinds, verifiers, and what a verdict is about.

SLSA provenance v1, SLSA VSA v1 and SCAI v0.3 where they fit; own predicates for contract, evidence, closure and
release.
"""

from __future__ import annotations

CONTRACT = "https://concordat.dev/round-contract/v1"
EXTENSION = "https://concordat.dev/round-extension/v1"
EVIDENCE = "https://concordat.dev/evidence/v1"
GRANT = "https://concordat.dev/round-grant/v1"
SCAI = "https://in-toto.io/attestation/scai/v0.3"
ENROLMENT = "https://concordat.dev/enrolment/v1"
CLOSURE = "https://concordat.dev/round-closure/v1"
RELEASE = "https://concordat.dev/release/v1"
PROVENANCE = "https://slsa.dev/provenance/v1"
VSA = "https://slsa.dev/verification_summary/v1"
LOCAL_UPDATE = "https://concordat.dev/local-update/v1"
AGGREGATION = "https://concordat.dev/aggregation/v1"
AGGREGATOR = "https://concordat.dev/hub/aggregator"
GATEWAY = "https://concordat.dev/hub/gateway"
DECISION = "https://concordat.dev/decision/v1"

ADAPTER_SUBJECT = "adapter"
"""Subject of what is said of an adapter: its artifact, by the digest of the manifest, which names every file of it."""

# Level names that do not start with SLSA_ are free to use. These keep one kind of verdict from passing for another.
CONSENTED = "CONCORDAT_CONSENTED"
ACCEPTED = "CONCORDAT_UPDATE_ACCEPTED"
EVALUATED = "CONCORDAT_EVALUATED"
ADOPTED = "CONCORDAT_ADOPTED"


def agent_id(site: str) -> str:
    """Return the verifier and builder id of a site's agent."""
    return f"https://concordat.dev/sites/{site}/agent"


def round_resource(round_uid: str) -> str:
    """Return the name of a round in verdicts."""
    return f"concordat:round/{round_uid}"


def update_resource(round_uid: str, site: str) -> str:
    """Return the name of a site's update in verdicts."""
    return f"concordat:round/{round_uid}/{site}"


def release_resource(federation: str, sequence: int) -> str:
    """Return the name of a release in verdicts."""
    return f"concordat:release/{federation}/{sequence}"
