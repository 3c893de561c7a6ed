"""Whether a copy of a Release is what its signed lineage says, by the keys that the site pinned."""

from __future__ import annotations

import asyncio
from functools import partial

from concordat.api import Release, Role
from concordat.lineage import Lineage, LineageError, verify_candidate, verify_release
from concordat.protocol.artifact_types import ADAPTER_CONFIG_FILE, ADAPTER_FILE, LINEAGE_FILE, MAX_LINEAGE
from concordat.protocol.contract import Contract
from concordat_agent.agent import Agent
from concordat_agent.signer import Verified


async def verified(agent: Agent, release: Release, role: Role) -> Verified:
    """Verify the copy offline against the site's own trust; raises LineageError, ArtifactError."""
    spec = release.spec
    if spec.lineage is None or spec.contract_digest is None:
        raise LineageError("spec.lineage and spec.contractDigest must be set in a copy")
    lines = await agent.registry.read(spec.lineage, LINEAGE_FILE, MAX_LINEAGE)
    files = sorted(await agent.registry.file_digests(spec.adapter))
    if files != sorted((ADAPTER_FILE, ADAPTER_CONFIG_FILE)):
        # What the agent would put beside the adapter in the folder that is served: a pickle, or a Python module.
        raise LineageError(f"the adapter has the files {', '.join(files)[:200]}, expected its two and no others")
    verify = verify_candidate if role is Role.EVALUATOR else partial(verify_release, sequence=spec.sequence)
    lineage: Lineage = await asyncio.to_thread(
        verify, lines, agent.trust, adapter=spec.adapter.digest, contract_digest=spec.contract_digest
    )
    proved = Verified(lineage.contract, spec.adapter.digest, _statement_id(lineage, role))
    _compare(release, proved.contract)
    return proved


def _statement_id(lineage: Lineage, role: Role) -> str:
    if role is Role.EVALUATOR:
        return lineage.aggregation_id
    if lineage.release_id is None:
        raise LineageError("the bundle does not end in a release")
    return lineage.release_id


def _compare(release: Release, contract: Contract) -> None:
    """Refuse a copy that says something else than the contract of its lineage."""
    spec = release.spec
    for field, shown, signed in (
        ("federation", spec.federation, contract.federation),
        ("base", spec.base.digest, contract.base.digest),
        ("parent", spec.parent.digest if spec.parent else None, contract.parent.digest),
        ("roundRef.uid", spec.round_ref.uid if spec.round_ref else None, contract.round.uid),
        ("trainedFactor", spec.trained_factor, contract.recipe.train_factor),
        ("runtimeClassName", spec.runtime_class_name, contract.runtime_class_name),
    ):
        if shown != signed:
            raise LineageError(f"spec.{field} is {shown}, the round's contract says {signed}")
