"""The statements of a round: one builder each. Numbers are integers or decimal strings.

SLSA provenance v1 and SLSA VSA v1 where they fit; own predicates for contract, closure and release. No SLSA level is
claimed: `SLSA_BUILD_LEVEL_UNEVALUATED`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from concordat.api.types import ArtifactRef
from concordat.protocol.artifact_types import ADAPTER_FILE, DELTA_FILE
from concordat.protocol.contract import Contract
from concordat.statements.dsse import STATEMENT_TYPE

CONTRACT = "https://concordat.dev/round-contract/v1"
CLOSURE = "https://concordat.dev/round-closure/v1"
RELEASE = "https://concordat.dev/release/v1"
PROVENANCE = "https://slsa.dev/provenance/v1"
VSA = "https://slsa.dev/verification_summary/v1"
LOCAL_UPDATE = "https://concordat.dev/local-update/v1"
AGGREGATION = "https://concordat.dev/aggregation/v1"
AGGREGATOR = "https://concordat.dev/hub/aggregator"
DECISION = "https://concordat.dev/decision/v1"

# Level names that do not start with SLSA_ are free to use. These keep one kind of verdict from passing for another.
CONSENTED = "CONCORDAT_CONSENTED"
ACCEPTED = "CONCORDAT_UPDATE_ACCEPTED"
EVALUATED = "CONCORDAT_EVALUATED"
ADOPTED = "CONCORDAT_ADOPTED"


def agent_id(site: str) -> str:
    """The verifier and builder id of a site's agent."""
    return f"https://concordat.dev/sites/{site}/agent"


def round_resource(round_uid: str) -> str:
    """Name of a round in verdicts."""
    return f"concordat:round/{round_uid}"


def update_resource(round_uid: str, site: str) -> str:
    """Name of a site's update in verdicts."""
    return f"concordat:round/{round_uid}/{site}"


def release_resource(federation: str, sequence: int) -> str:
    """Name of a release in verdicts."""
    return f"concordat:release/{federation}/{sequence}"


def rfc3339(time: datetime) -> str:
    """UTC, to the second."""
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _digest(value: str) -> dict[str, str]:
    return {"sha256": value.removeprefix("sha256:")}


def _statement(name: str, digest: str, predicate_type: str, predicate: dict[str, Any]) -> dict[str, Any]:
    return {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": name, "digest": _digest(digest)}],
        "predicateType": predicate_type,
        "predicate": predicate,
    }


def _dependency(role: str, digest: str, ref: ArtifactRef | None = None) -> dict[str, Any]:
    out: dict[str, Any] = {"digest": _digest(digest), "annotations": {"role": role}}
    if ref is not None:
        out["uri"] = f"oci://{ref.repository}@{ref.digest}"
    return out


def _artifact(role: str, ref: ArtifactRef) -> dict[str, Any]:
    return _dependency(role, ref.digest, ref)


def contract_statement(*, contract: Mapping[str, Any], digest: str) -> dict[str, Any]:
    """The hub's offer. The predicate is the contract itself, so that a bundle of statements is complete."""
    return _statement(Contract.FILE, digest, CONTRACT, dict(contract))


def _summary(
    *,
    name: str,
    digest: str,
    verifier: str,
    resource: str,
    policy_digest: str,
    inputs: Sequence[str],
    passed: bool,
    level: str,
    at: datetime,
    extension: Mapping[str, Any],
) -> dict[str, Any]:
    predicate: dict[str, Any] = {
        "verifier": {"id": verifier},
        "timeVerified": rfc3339(at),
        "resourceUri": resource,
        "policy": {"digest": _digest(policy_digest)},
        "inputAttestations": [{"digest": _digest(i)} for i in inputs],
        "verificationResult": "PASSED" if passed else "FAILED",
        "verifiedLevels": ["SLSA_BUILD_LEVEL_UNEVALUATED", level] if passed else ["FAILED"],
        DECISION: dict(extension),
    }
    return _statement(name, digest, VSA, predicate)


def consent_statement(
    *, site: str, round_uid: str, contract_digest: str, policy_digest: str, passed: bool, reason: str, at: datetime
) -> dict[str, Any]:
    """The site's answer to a contract. Signed by the site's key, it also proves possession of it."""
    return _summary(
        name=Contract.FILE,
        digest=contract_digest,
        verifier=agent_id(site),
        resource=round_resource(round_uid),
        policy_digest=policy_digest,
        inputs=[],
        passed=passed,
        level=CONSENTED,
        at=at,
        extension={"site": site, "reason": reason},
    )


def update_statement(
    *,
    site: str,
    round_uid: str,
    update_digest: str,
    base: ArtifactRef,
    parent: ArtifactRef,
    contract_digest: str,
    consent_id: str,
    steps: int,
    examples: int,
    norm: str,
    clipped: bool,
    finished: datetime,
) -> dict[str, Any]:
    """How a site made its update. `update_digest` is the digest of the file delta.safetensors."""
    predicate = {
        "buildDefinition": {
            "buildType": LOCAL_UPDATE,
            "externalParameters": {"round": round_uid, "site": site, "contract": contract_digest},
            "resolvedDependencies": [
                _artifact("base", base),
                _artifact("parent", parent),
                _dependency("contract", contract_digest),
                _dependency("consent", consent_id),
            ],
        },
        "runDetails": {"builder": {"id": agent_id(site)}, "metadata": {"finishedOn": rfc3339(finished)}},
        LOCAL_UPDATE: {"steps": steps, "examples": examples, "norm": norm, "clipped": clipped},
    }
    return _statement(DELTA_FILE, update_digest, PROVENANCE, predicate)


def verdict_statement(
    *,
    site: str,
    round_uid: str,
    update_digest: str,
    update_id: str | None,
    contract_digest: str,
    passed: bool,
    reason: str,
    norm: str | None,
    measurements: Mapping[str, str],
    alerts: Sequence[str],
    at: datetime,
) -> dict[str, Any]:
    """The hub's judgement of one update. `update_digest`: of the file, or of the artifact if it is unreadable.

    `measurements` is what screening measured, `alerts` what was out of the ordinary.
    """
    extension: dict[str, Any] = {
        "site": site,
        "reason": reason,
        "measurements": dict(measurements),
        "alerts": sorted(alerts),
    }
    if norm is not None:
        extension["norm"] = norm
    return _summary(
        name=DELTA_FILE,
        digest=update_digest,
        verifier=AGGREGATOR,
        resource=update_resource(round_uid, site),
        policy_digest=contract_digest,
        inputs=[update_id] if update_id else [],
        passed=passed,
        level=ACCEPTED,
        at=at,
        extension=extension,
    )


def closure_statement(
    *, contract_digest: str, verdicts: Sequence[str], accepted: int, rejected: int, missing: Sequence[str], at: datetime
) -> dict[str, Any]:
    """All verdicts of a round, so that none can be left out later."""
    predicate = {
        "contract": contract_digest,
        "verdicts": sorted(verdicts),
        "accepted": accepted,
        "rejected": rejected,
        "missing": sorted(missing),
        "closedAt": rfc3339(at),
    }
    return _statement(Contract.FILE, contract_digest, CLOSURE, predicate)


def aggregation_statement(
    *,
    round_uid: str,
    adapter_digest: str,
    base: ArtifactRef,
    parent: ArtifactRef,
    contract_digest: str,
    closure_id: str,
    updates: Sequence[str],
    rule: str,
    pre_aggregation: str,
    lora: str,
    rejected: int,
    finished: datetime,
) -> dict[str, Any]:
    """What the candidate was made of. `updates` are the ids of the accepted update statements.

    `rejected` is how much of the fault budget screening used up.
    """
    predicate = {
        "buildDefinition": {
            "buildType": AGGREGATION,
            "externalParameters": {
                "round": round_uid,
                "contract": contract_digest,
                "rule": rule,
                "preAggregation": pre_aggregation,
                "lora": lora,
                "rejected": rejected,
            },
            "resolvedDependencies": [
                _artifact("base", base),
                _artifact("parent", parent),
                _dependency("contract", contract_digest),
                _dependency("closure", closure_id),
                *(_dependency("update", u) for u in sorted(updates)),
            ],
        },
        "runDetails": {"builder": {"id": AGGREGATOR}, "metadata": {"finishedOn": rfc3339(finished)}},
    }
    return _statement(ADAPTER_FILE, adapter_digest, PROVENANCE, predicate)


def decision_statement(
    *,
    site: str,
    resource: str,
    adapter_digest: str,
    policy_digest: str,
    inputs: Sequence[str],
    passed: bool,
    reason: str,
    figures: Mapping[str, int],
    at: datetime,
) -> dict[str, Any]:
    """A site's decision on a release (adopt or reject)."""
    return _summary(
        name=ADAPTER_FILE,
        digest=adapter_digest,
        verifier=agent_id(site),
        resource=resource,
        policy_digest=policy_digest,
        inputs=inputs,
        passed=passed,
        level=ADOPTED,
        at=at,
        extension={"site": site, "reason": reason, "figures": dict(figures)},
    )


def evaluation_statement(
    *,
    evaluator: str,
    resource: str,
    adapter_digest: str,
    policy_digest: str,
    aggregation_id: str,
    passed: bool,
    reason: str,
    figures: Mapping[str, int],
    at: datetime,
) -> dict[str, Any]:
    """The independent evaluator's verdict on a candidate."""
    return _summary(
        name=ADAPTER_FILE,
        digest=adapter_digest,
        verifier=agent_id(evaluator),
        resource=resource,
        policy_digest=policy_digest,
        inputs=[aggregation_id],
        passed=passed,
        level=EVALUATED,
        at=at,
        extension={"site": evaluator, "reason": reason, "figures": dict(figures)},
    )


def release_statement(
    *,
    federation: str,
    sequence: int,
    supersedes: str | None,
    adapter_digest: str,
    contract_digest: str,
    aggregation_id: str,
    evaluation_id: str,
) -> dict[str, Any]:
    """The hub's release of an approved candidate. `supersedes` is the digest of the parent adapter's artifact."""
    predicate: dict[str, Any] = {
        "federation": federation,
        "sequence": sequence,
        "contract": contract_digest,
        "provenance": aggregation_id,
        "evaluation": evaluation_id,
    }
    if supersedes is not None:
        predicate["supersedes"] = supersedes
    return _statement(ADAPTER_FILE, adapter_digest, RELEASE, predicate)
