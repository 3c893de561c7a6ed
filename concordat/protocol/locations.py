"""Where things are: repositories of the artifact registry, folders of a workspace, and objects known by their name.

Both sides of every boundary use these names, and the rights of the charts are granted for them.
"""

from __future__ import annotations

AGENT_LEASE = "concordat-agent"
"""Lease in a site's namespace: the agent renews it, the operator takes a site without one for silent."""
TRUST_CONFIGMAP = "concordat-trust"
"""ConfigMap in the hub's namespace: the public keys that sites pin."""
TRUST_FILE = "trust.json"
GATEWAY_CONFIGMAP = "concordat-gateway"
"""ConfigMap in the hub's namespace: the gateway's public keys, for grants, and what its certificate is known by."""
GATEWAY_KEYS_FILE, GATEWAY_CA_FILE = "keys.json", "ca.crt"
GATEWAY_AUDIENCE = "concordat-gateway"
"""Audience of the tokens that pods show to the gateway."""

RESULT_FOLDER = "result"
"""In a Job's outputs: what it hands over, complete as soon as it is there."""
PARENT_FOLDER = "parent"
"""In a Job's inputs: the adapter that the round started from."""


def round_repository(federation: str, round_uid: str) -> str:
    """Return the hub's repository for a round: contract, verdicts, closure, report, candidate."""
    return f"{federation}/rounds/{round_uid}"


def site_repository(federation: str, round_uid: str, site: str) -> str:
    """Return a site's repository for a round: consent and update. Nothing else is read for this site."""
    return f"{round_repository(federation, round_uid)}/{site}"


def decisions_repository(federation: str, site: str) -> str:
    """Return a site's, or an evaluator's, repository for its answers to releases and candidates."""
    return f"{federation}/decisions/{site}"


def releases_repository(federation: str) -> str:
    """Return the hub's repository for signed releases."""
    return f"{federation}/releases"


def lineage_repository(federation: str) -> str:
    """Return the hub's repository for the statements behind candidates and releases."""
    return f"{federation}/lineage"


def adapters_repository(federation: str) -> str:
    """Return the hub's repository for the adapters of candidates and releases."""
    return f"{federation}/adapters"


def base_repository(federation: str) -> str:
    """Return the hub's repository for base packages."""
    return f"{federation}/base"


def base_folder(digest: str) -> str:
    """Return the folder of a base package in a workspace, by the digest of its manifest."""
    return f"base/{digest.removeprefix('sha256:')}"


def job_folder(job: str) -> str:
    """Return the folder of a Job in a workspace. What lies in it directly is the agent's own."""
    return f"work/{job}"


def inputs_folder(job: str) -> str:
    """Return the folder that the agent fills and the Job reads."""
    return f"{job_folder(job)}/in"


def outputs_folder(job: str) -> str:
    """Return the folder that the Job fills and the agent reads, trusting nothing in it."""
    return f"{job_folder(job)}/out"
