"""What leaves the site: signed statements and clipped updates. The same inputs give the same bytes.

Times come from the objects concerned, never from the clock, so that a step repeated after a crash pushes what is
already there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from concordat.api import Release, Update
from concordat.api.release import Decision
from concordat.api.round_status import EvaluationStatus
from concordat.api.types import ArtifactRef
from concordat.api.update import Consent, Submission
from concordat.artifacts import RegistryStore
from concordat.lora import Adapter, Ceiling
from concordat.protocol.artifact_types import DELTA_FILE, GRANT_FILE, MAX_STATEMENT, STATEMENT, STATEMENT_FILE, UPDATE
from concordat.protocol.canonical import sha256_digest
from concordat.protocol.contract import Contract
from concordat.protocol.locations import decisions_repository, site_repository
from concordat.protocol.training import TrainingEvidence
from concordat.screening import decimal, norm_limits
from concordat.statements import SigningKey, StatementError, open_bundle, sign
from concordat.statements.names import ADAPTER_SUBJECT, agent_id, release_resource
from concordat.statements.provenance import LocalUpdate, update_provenance
from concordat.statements.summary import Summary, consent, levels, read_summary
from concordat.tensors import Tensors, check_schema, write_tensors
from concordat_agent.keyring import Keyring
from concordat_agent.policy import Answer


@dataclass(frozen=True)
class Prepared:
    """An update ready to be sent, with the norm of its weight change and whether it had to be clipped."""

    delta: Tensors
    norm: float
    clipped: bool


@dataclass(frozen=True)
class Outgoing:
    """An update as it leaves the site: the bytes of delta.safetensors and their digest."""

    delta: bytes
    digest: str
    norm: str
    clipped: bool


Prepare = Callable[[Tensors, Ceiling], Prepared]
"""From what training changed and the contract's ceiling to what is sent. Raises TensorError, LoraError."""


def clipped(delta: Tensors, ceiling: Ceiling) -> Prepared:
    """Scale an update down to the contract's ceiling if it is above. Raises NotFiniteError."""
    check_schema(delta, ceiling.parent.tensors(), ceiling.factor)
    within, norm, cut = ceiling.clip(delta)
    return Prepared(delta=within, norm=norm, clipped=cut)


@dataclass(frozen=True)
class Verified:
    """A release or candidate whose lineage holds."""

    contract: Contract
    adapter: str
    """Digest of the adapter's artifact."""
    statement_id: str
    """The statement the answer is about: the release, or the aggregation for the evaluator."""


class ConsentMissing(Exception):
    """There is no consent of this site to the contract, signed by its key."""


class Signer:
    """Signs with the site's keys and pushes to the registry.

    In a round with the key that its contract names, else with the one that the hub accepts now.
    """

    def __init__(
        self, site: str, keys: Keyring, registry: RegistryStore, policy_digest: str, prepare: Prepare = clipped
    ) -> None:
        self._site = site
        self.keys = keys
        self._registry = registry
        self._policy_digest = policy_digest
        self._prepare = prepare

    async def consent(self, update: Update, contract: Contract, answer: Answer) -> Consent:
        """Sign and push the answer to a contract, dated as the Update was created."""
        created = update.metadata.creation_timestamp
        if created is None:
            raise ValueError("metadata.creationTimestamp is missing: the Update was not read from an API server")
        signed = consent(
            site=self._site,
            round_uid=update.spec.round_ref.uid,
            contract_digest=update.spec.contract_digest,
            policy_digest=self._policy_digest,
            passed=answer.passed,
            reason=answer.reason.value,
            at=created,
        )
        return Consent(statement=await self._push(self._slot(update), signed.statement(), self._named(contract)))

    async def consent_id(self, update: Update, contract: Contract) -> str:
        """Return the id of this site's own consent, read back and verified. Raises ConsentMissing, ArtifactError."""
        if update.status.consent is None:
            raise ConsentMissing("status.consent is empty")
        data = await self._registry.read(update.status.consent.statement, STATEMENT_FILE, MAX_STATEMENT)
        try:
            summary = read_summary(open_bundle(data, [self._named(contract).public]))
        except StatementError as error:
            raise ConsentMissing(f"status.consent names no statement of this site: {error}") from None
        if not summary.passed or summary.subject != update.spec.contract_digest:
            raise ConsentMissing("status.consent names a statement that is no consent to this contract")
        return summary.id

    async def prepare(self, contract: Contract, learned: Tensors, parent: Adapter) -> Outgoing:
        """Clip what was learned. Raises NotFiniteError, LoraError if training this factor changes nothing."""
        limits = norm_limits(contract.screening)
        ceiling = Ceiling(parent, contract.recipe.train_factor, limits.clip_norm, limits.module_clip_norm)
        prepared = await asyncio.to_thread(self._prepare, learned, ceiling)
        delta = await asyncio.to_thread(write_tensors, prepared.delta)
        return Outgoing(delta, sha256_digest(delta), decimal(prepared.norm), prepared.clipped)

    async def update(
        self,
        update: Update,
        contract: Contract,
        *,
        outgoing: Outgoing,
        training: TrainingEvidence,
        consent_id: str,
        grant: tuple[bytes, str],
        finished: datetime,
    ) -> Submission:
        """Sign and push an update that passed the gates, with the `grant` to send it beside its statement."""
        bundle, grant_id = grant
        local_update = LocalUpdate(
            sha256=outgoing.digest,
            consent_id=consent_id,
            grant_id=grant_id,
            steps=training.steps,
            examples=training.examples,
            norm=outgoing.norm,
            clipped=outgoing.clipped,
            finished=finished,
        )
        statement = update_provenance(self._site, contract, update.spec.contract_digest, local_update).statement()
        files = {STATEMENT_FILE: sign(statement, self._named(contract)), GRANT_FILE: bundle}
        return Submission(
            artifact=await self._registry.push(self._slot(update), UPDATE, {DELTA_FILE: outgoing.delta}),
            statement=await self._registry.push(self._slot(update), STATEMENT, files),
            norm=outgoing.norm,
            clipped=outgoing.clipped,
            examples=training.examples,
            parent_ppm=training.parent_ppm,
            candidate_ppm=training.candidate_ppm,
        )

    async def answer(
        self,
        release: Release,
        verified: Verified,
        answer: Answer,
        *,
        policy_digest: str,
        metrics: EvaluationStatus,
        level: str,
        at: datetime,
        key: str | None,
    ) -> Decision:
        """Sign and push this site's decision on a release (ADOPTED), or the evaluator's on a candidate (EVALUATED).

        `policy_digest` is of the policy by which it was taken; `key` the thumbprint that the hub accepts now.
        """
        signed = Summary(
            file=ADAPTER_SUBJECT,
            subject=verified.adapter,
            verifier=agent_id(self._site),
            resource=release_resource(release.spec.federation, release.spec.sequence),
            policy=policy_digest,
            inputs=(verified.statement_id,),
            levels=levels(answer.passed, level),
            site=self._site,
            reason=answer.reason.value,
            at=at,
            details={"figures": metrics.wire()},
        )
        repository = decisions_repository(release.spec.federation, self._site)
        pushed = await self._push(repository, signed.statement(), self.keys.choose(key))
        return Decision(statement=pushed, evaluation=metrics)

    async def _push(self, repository: str, statement: dict[str, Any], key: SigningKey) -> ArtifactRef:
        return await self._registry.push(repository, STATEMENT, {STATEMENT_FILE: sign(statement, key)})

    def _named(self, contract: Contract) -> SigningKey:
        """Return the key that the contract names for this site."""
        named = contract.site(self._site)
        return self.keys.choose(named.key_thumbprint if named is not None else None)

    def _slot(self, update: Update) -> str:
        return site_repository(update.spec.federation, update.spec.round_ref.uid, self._site)
