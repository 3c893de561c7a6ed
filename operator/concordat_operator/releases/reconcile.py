"""A Release of the hub: have it judged, sign it when it passed. A copy: launch its Job, show how it went."""

from __future__ import annotations

import asyncio

from concordat.api import ConditionSet, ConditionType, FederationRound, Reason, Release, Site
from concordat.api.release import ReleaseStatus, answer, copy_name
from concordat.api.round_status import EvaluationStatus
from concordat.api.types import LABEL_RELEASE, ArtifactRef, ObjectMeta
from concordat.artifacts import PERMANENT_REGISTRY_ERRORS
from concordat.controller import JOB, Key, Result, write_status
from concordat.jobs import outcome
from concordat.lineage import Lineage, LineageError, verify_candidate, verify_release
from concordat.protocol.artifact_types import LINEAGE_FILE, MAX_LINEAGE, STATEMENT_FILE
from concordat.statements import PublicKey, StatementError, open_bundle, unverified
from concordat.statements.release import ReleaseStatement
from concordat_operator import metrics
from concordat_operator.create import create_once
from concordat_operator.finding import Finding
from concordat_operator.hub import FIELD_MANAGER, Hub
from concordat_operator.members.plan import Member
from concordat_operator.releases.copies import CopyReconciler
from concordat_operator.releases.plan import (
    UNDECIDED,
    Step,
    copy_spec,
    decided,
    evaluators_copy,
    next_step,
    ours,
    rollout,
    superseding,
)
from concordat_operator.rounds.select import evaluator
from concordat_operator.signing import publish_release
from concordat_operator.text import until

REQUEUE_SECONDS = 15.0


class ReleaseReconciler:
    """Attends to Releases, the hub's and the namespaces' copies."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._copies = CopyReconciler(hub)

    async def __call__(self, key: Key) -> Result:
        """Do the next step of one Release. Raises Transient when the registry or the API server is out of reach."""
        hub = self._hub
        release = hub.cache.get(Release, *key)
        if release is None:
            return Result()
        if key[0] == hub.settings.namespace:
            return await self._release(release)
        return await self._copies(release) if ours(release, hub.settings.namespace) else Result()

    async def _release(self, release: Release) -> Result:
        hub, now = self._hub, self._hub.clock.now()
        sites = hub.cache.list(Site)
        members = hub.members.present(sites, now)
        named = hub.cache.list(Release, labels={LABEL_RELEASE: release.metadata.name})
        copies = [r for r in named if ours(r, hub.settings.namespace)]
        judged = evaluators_copy(copies, hub.members.judges())
        its_evaluator = evaluator(release.spec.federation, sites, members)
        newer = self._newer(release)
        step = next_step(release, judged, its_evaluator, now, newer)
        lineage, evaluation = release.status.lineage, release.status.evaluation
        finding: Finding | None = None
        if step is Step.CHECK:
            finding = await self._check(release)
        elif step is Step.ASK and its_evaluator is not None:
            await self._ask(release, its_evaluator)
            finding = Finding(Reason.EVALUATING, f"{its_evaluator.metadata.name} is judging the candidate.")
        elif step is Step.SIGN and judged is not None:
            finding, lineage, evaluation = await self._sign(release, judged, members.get(judged.metadata.namespace))
        elif step is Step.SUPERSEDE and newer is not None:
            finding = Finding(Reason.PARENT_SUPERSEDED, f"Release {newer.metadata.name} was approved meanwhile.")
        elif step is Step.EXPIRE:
            finding = _expired(release, judged)
        elif not decided(release) and judged is None and its_evaluator is None:
            finding = Finding(Reason.NO_EVALUATOR, "No member with role Evaluator is Ready for this federation.")
        await self._write(release, finding, lineage, evaluation, [c for c in copies if c is not judged])
        if decided(release):
            await self._stop_evaluators(copies)
        return Result(_requeue_after(release, finding))

    def _newer(self, release: Release) -> Release | None:
        """Return a release of the federation that was approved since this candidate's round began."""
        spec, ref, hub = release.spec, release.spec.round_ref, self._hub
        if spec.sequence == 0:
            return None
        round_ = hub.cache.get(FederationRound, ref.namespace, ref.name) if ref is not None else None
        # Not that of a round which was made again under its name.
        its_own = round_ is not None and ref is not None and round_.metadata.uid == ref.uid
        contract = round_.status.contract if round_ is not None and its_own else None
        # By the hub's clock, as approvals are told; when the candidate was made, the API server says by its own.
        since = contract.contracted_time if contract is not None else release.metadata.creation_timestamp
        if since is None:
            return None
        others = [r for r in hub.cache.list(Release, release.metadata.namespace) if r.key != release.key]
        parents = (r for r in others if r.spec.federation == spec.federation and r.spec.adapter == spec.parent)
        return superseding(others, spec.federation, max((r.spec.sequence for r in parents), default=0), since)

    async def _check(self, release: Release) -> Finding:
        """Check that the artifacts of the start of a federation are there."""
        try:
            for ref in (release.spec.base, release.spec.adapter):
                await self._hub.registry.files(ref)
        except PERMANENT_REGISTRY_ERRORS as error:
            return Finding(
                Reason.ARTIFACT_UNREADABLE,
                f"{error}: push it; the registry is looked at again every {REQUEUE_SECONDS:.0f} s.",
            )
        return Finding(Reason.GENESIS, "The start of the federation, made by people; its artifacts are there.")

    async def _ask(self, release: Release, its_evaluator: Site) -> None:
        metadata = ObjectMeta(
            name=copy_name(release),
            namespace=its_evaluator.metadata.namespace,
            labels={**release.metadata.labels, LABEL_RELEASE: release.metadata.name},
        )
        spec = copy_spec(release, release.spec.lineage, deadline=True)
        await create_once(self._hub.cluster, Release(metadata=metadata, spec=spec))

    async def _stop_evaluators(self, copies: list[Release]) -> None:
        """Stop the Jobs of evaluators whose answer is not wanted any more; only their copies have a deadline."""
        for copy in copies:
            job = self._hub.cache.get(JOB, *copy.key) if copy.spec.deadline is not None else None
            if job is not None and outcome(job) is None:
                await self._hub.cluster.delete(JOB, *copy.key, job["metadata"]["uid"])

    async def _sign(
        self, release: Release, judged: Release, judge: Member | None
    ) -> tuple[Finding, ArtifactRef | None, EvaluationStatus | None]:
        """Verify the evaluator's signed verdict, and if it passed sign the release that rests on it."""
        hub, spec, decision = self._hub, release.spec, judged.status.decision
        name = judged.metadata.namespace
        key = PublicKey.from_pem(judge.key.public_key) if judge is not None else None
        reply = answer(judged.status.conditions)
        waits = spec.deadline is not None and hub.clock.now() < spec.deadline
        if key is None and decision is not None and waits:
            return Finding(Reason.EVALUATING, f"{name} has answered, but is no member that counts now."), None, None
        if decision is None or reply is None or key is None or spec.lineage is None or spec.contract_digest is None:
            why = reply.message if reply is not None else "it signed nothing"
            return Finding(Reason.REJECTED, f"{name} gave no signed verdict: {why}"), None, None
        try:
            verdict = await hub.registry.read(decision.statement, STATEMENT_FILE)
            open_bundle(verdict, [key])
            if not reply.is_true:
                return Finding(Reason.REJECTED, reply.message), None, decision.evaluation
            lineage = await self._publish(release, verdict, {name: (key,)})
        except PERMANENT_REGISTRY_ERRORS as error:
            # A registry that is being repaired or restored has it again; a verdict is asked for once only.
            reason = Reason.ARTIFACT_UNREADABLE if waits else Reason.REJECTED
            return Finding(reason, f"{name}'s verdict cannot be checked: {error}."), None, None
        except (StatementError, LineageError) as error:
            return Finding(Reason.REJECTED, f"{name}'s verdict cannot be relied on: {error}."), None, None
        return Finding(Reason.APPROVED, reply.message), lineage, decision.evaluation

    async def _publish(self, release: Release, verdict: bytes, judges: dict[str, tuple[PublicKey, ...]]) -> ArtifactRef:
        """Sign the release, and see with a site's eyes that the whole chain holds before anybody else looks."""
        hub, spec = self._hub, release.spec
        trust = hub.keys.trust(judges)
        if spec.lineage is None or spec.contract_digest is None:
            raise LineageError("spec.lineage and spec.contractDigest must be set")
        candidate = await hub.registry.read(spec.lineage, LINEAGE_FILE, MAX_LINEAGE)
        # Asked again: what is gone since the candidate was made is not approved.
        await hub.registry.files(spec.adapter)
        adapter = spec.adapter.digest
        verified: Lineage = await asyncio.to_thread(
            verify_candidate, candidate, trust, adapter=adapter, contract_digest=spec.contract_digest
        )
        statement = ReleaseStatement(
            subject=adapter,
            federation=spec.federation,
            sequence=spec.sequence,
            supersedes=spec.parent.digest if spec.parent is not None else None,
            contract=spec.contract_digest,
            provenance=verified.aggregation_id,
            evaluation=unverified(verdict).id,
        )
        lines, ref = await publish_release(hub.registry, hub.keys, statement, candidate, verdict)
        await asyncio.to_thread(
            verify_release,
            lines,
            trust,
            adapter=adapter,
            contract_digest=spec.contract_digest,
            sequence=spec.sequence,
        )
        return ref

    async def _write(
        self,
        release: Release,
        finding: Finding | None,
        lineage: ArtifactRef | None,
        evaluation: EvaluationStatus | None,
        copies: list[Release],
    ) -> None:
        hub = self._hub
        conditions = ConditionSet(release.status.conditions, release.metadata.generation, hub.clock.now())
        if finding is not None:
            holds = _holds(release, finding)
            conditions.set(ConditionType.APPROVED, holds, finding.reason, finding.message)
            if release.spec.sequence > 0:
                conditions.set(ConditionType.EVALUATED, holds, finding.reason, finding.message)
            good = conditions.is_true(ConditionType.APPROVED)
            conditions.set(ConditionType.READY, good, finding.reason, finding.message)
            conditions.drop(ConditionType.STALLED)
            if holds is False:
                conditions.set(ConditionType.STALLED, True, finding.reason, finding.message)
        status = ReleaseStatus(
            observed_generation=release.metadata.generation,
            conditions=conditions.list(),
            lineage=lineage,
            evaluation=evaluation,
            rollout=rollout(copies) if copies else None,
        )
        # An approval cannot be taken back: not onto a release that was changed since it was looked at.
        irreversible = lineage != release.status.lineage
        written = await write_status(hub.cluster, release, status, FIELD_MANAGER, unchanged=irreversible)
        if written and finding is not None and finding.reason not in UNDECIDED:
            metrics.RELEASES.labels(finding.reason).inc()


def _holds(release: Release, finding: Finding) -> bool | None:
    """Return whether the release is approved; None while that is open."""
    if finding.reason in (Reason.APPROVED, Reason.GENESIS):
        return True
    # People push what the start of a federation lacks; of a candidate it is waited for.
    waits = finding.reason == Reason.ARTIFACT_UNREADABLE and release.spec.sequence > 0
    return None if waits or finding.reason in (Reason.EVALUATING, Reason.NO_EVALUATOR) else False


def _expired(release: Release, judged: Release | None) -> Finding:
    deadline = until(release.spec.deadline) if release.spec.deadline is not None else "the deadline"
    who = f"{judged.metadata.namespace} did not answer" if judged is not None else "No evaluator could be asked"
    return Finding(Reason.EVALUATION_DEADLINE_EXCEEDED, f"{who} by {deadline}.")


def _requeue_after(release: Release, finding: Finding | None) -> float | None:
    if finding is not None and finding.reason == Reason.ARTIFACT_UNREADABLE:
        return REQUEUE_SECONDS
    return REQUEUE_SECONDS if not decided(release) and release.spec.deadline is not None else None
