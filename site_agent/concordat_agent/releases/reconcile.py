"""A copy of a Release: verify and stage, judge. One step and one status write each time.

The evaluator judges candidates in the same way; only what verifies and what the answer is called differ.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from concordat.api import RETRIED_REASONS, ConditionSet, ConditionType, Reason, Release, Role, Site
from concordat.api.release import Decision as DecisionStatus
from concordat.api.release import ReleaseStatus, answer, show_answer
from concordat.api.round_status import EvaluationStatus
from concordat.api.site import Champion
from concordat.api.types import ArtifactRef
from concordat.artifacts import PERMANENT_REGISTRY_ERRORS, ArtifactError
from concordat.controller import JOB, Key, Result, write_status
from concordat.jobs import JobError, Outcome, evaluation_job, outcome, same_job
from concordat.lineage import Lineage, LineageError, verify_candidate, verify_release
from concordat.protocol.artifact_types import ADAPTER_FILE, LINEAGE_FILE, MAX_LINEAGE
from concordat.protocol.contract import Contract
from concordat.protocol.document import DocumentError
from concordat.protocol.evaluation import EvaluationEvidence, EvaluationTask, ModelName
from concordat.statements.names import ADOPTED, EVALUATED
from concordat_agent.agent import FIELD_MANAGER, Agent
from concordat_agent.metrics import DECISIONS, LOCAL_QUALITY
from concordat_agent.policy import Answer, image_objection
from concordat_agent.releases.adoption import Comparison, decide_adoption
from concordat_agent.releases.decision import Decision, keep, kept
from concordat_agent.releases.plan import CONDITIONS, WITH_ANSWER, Step, answer_condition, next_step
from concordat_agent.releases.verdict import verdict
from concordat_agent.signer import Verified
from concordat_agent.trouble import RETRY_SECONDS, show, trouble
from concordat_agent.workspace import ResultError

_DEFAULT_CONFIDENCE_PPM = 950_000


@dataclass(frozen=True)
class ReleaseAnswer:
    """The end of a step: the condition it sets, and what goes beside it."""

    condition: ConditionType
    answer: Answer
    decision: DecisionStatus | None = None


class ReleaseReconciler:
    """Decides about releases (a site) or candidates (the evaluator)."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    async def __call__(self, key: Key) -> Result:
        """Do the next step of one copy. Raises Transient when the API server is out of reach.

        What else is in the way of a step is shown in its condition, and the step is tried again.
        """
        agent = self._agent
        release = agent.cache.get(Release, *key)
        site = agent.cache.get(Site, key[0], agent.site)
        if release is None or site is None:
            return Result()
        job = agent.cache.get(JOB, *key)
        job_outcome = outcome(job)
        step = next_step(release, site.spec.role, job_outcome)
        if step is Step.REST:
            return Result()
        answered = await self._attempt(step, release, site, job or {}, job_outcome)
        await self._write(release, answered)
        pending = answered.answer.reason in RETRIED_REASONS
        return Result(requeue_after=RETRY_SECONDS if pending else None)

    async def _attempt(
        self, step: Step, release: Release, site: Site, job: dict[str, Any], job_outcome: Outcome | None
    ) -> ReleaseAnswer:
        """Do a step; return what is in its way if it cannot be done at present."""
        condition = ConditionType.STAGED if step is Step.STAGE else answer_condition(site.spec.role)
        try:
            if step is Step.STAGE:
                return ReleaseAnswer(condition, await self._stage(release, site))
            if step is Step.JUDGE and job_outcome is not None:
                return await self._decide_on(release, site, job, job_outcome)
        except (ArtifactError, OSError) as error:
            if (obstacle := trouble(error)) is None:
                raise
            return ReleaseAnswer(condition, obstacle)
        failure = job_outcome.message if job_outcome is not None else "gone"
        message = f"The evaluation Job failed ({failure}); see condition Validated."
        return ReleaseAnswer(condition, Answer.no(Reason.VALIDATION_FAILED, message))

    async def _verify(self, release: Release, role: Role) -> Verified:
        """Verify the copy offline against the site's own trust; raises LineageError, ArtifactError."""
        agent, spec = self._agent, release.spec
        if spec.lineage is None or spec.contract_digest is None:
            raise LineageError("spec.lineage and spec.contractDigest must be set in a copy")
        lines = await agent.registry.read(spec.lineage, LINEAGE_FILE, MAX_LINEAGE)
        adapter_sha256 = (await agent.registry.file_digests(spec.adapter)).get(ADAPTER_FILE, "")
        if role is Role.EVALUATOR:
            lineage = await asyncio.to_thread(
                verify_candidate,
                lines,
                agent.trust,
                adapter_sha256=adapter_sha256,
                contract_digest=spec.contract_digest,
            )
        else:
            lineage = await asyncio.to_thread(
                verify_release,
                lines,
                agent.trust,
                adapter_sha256=adapter_sha256,
                contract_digest=spec.contract_digest,
                sequence=spec.sequence,
            )
        verified = Verified(lineage.contract, adapter_sha256, _statement_id(lineage, role))
        _compare(release, verified.contract)
        return verified

    async def _stage(self, release: Release, site: Site) -> Answer:
        agent, spec, name = self._agent, release.spec, release.metadata.name
        workspace, registry, role = agent.workspace, agent.registry, site.spec.role
        if site.federation(spec.federation) is None:
            return Answer.no(
                Reason.POLICY_REJECTED, f"Federation {spec.federation!r} is not among this site's federations."
            )
        if refused := image_objection(agent.policy, str(spec.image)):
            return Answer.no(Reason.POLICY_REJECTED, f"{refused}.")
        incumbent = agent.champions.incumbent(spec.federation, name) if role is Role.TRAINER else None
        try:
            verified = await self._verify(release, role)
            if incumbent is not None and spec.sequence <= incumbent.sequence:
                raise LineageError(
                    f"sequence {spec.sequence} is not higher than {incumbent.sequence}, which this site adopted as "
                    f"{incumbent.release}; a way back is a new release with a higher sequence"
                )
            parent = verified.contract.parent
            compared: dict[ModelName, ArtifactRef] = {"parent": parent, "candidate": spec.adapter}
            if incumbent is not None and incumbent.artifact != parent:
                compared["champion"] = incumbent.artifact
            workspace.prepare(name)
            await registry.pull(spec.base, workspace.base(spec.base.digest))
            for model, ref in compared.items():
                await registry.pull(ref, workspace.inputs(name) / model)
        except LineageError as error:
            return Answer.no(Reason.LINEAGE_INVALID, f"{error}.")
        except PERMANENT_REGISTRY_ERRORS as error:
            return Answer.no(Reason.ARTIFACT_UNREADABLE, f"{error}.")
        task = EvaluationTask(models=list(compared), confidence_ppm=spec.confidence_ppm or _DEFAULT_CONFIDENCE_PPM)
        in_use = incumbent.release if incumbent is not None else None
        workspace.write_note(name, "note", {"champion": in_use, "models": list(compared)})
        workspace.write_input(name, task.FILE, task.to_bytes())
        return Answer.yes(Reason.LINEAGE_VERIFIED, f"Lineage verified offline; {', '.join(compared)} are staged.")

    async def _decide_on(
        self, release: Release, site: Site, job: dict[str, Any], job_outcome: Outcome
    ) -> ReleaseAnswer:
        agent, spec, role = self._agent, release.spec, site.spec.role
        condition = answer_condition(role)
        if job_outcome.completed is None:
            raise ValueError("a Job that failed has no metrics to judge")
        try:
            verified = await self._verify(release, role)
            expected = evaluation_job(release, site)
            if difference := same_job(job, expected):
                message = f"The Job is not the one the release describes: {difference}."
                return ReleaseAnswer(condition, Answer.no(Reason.JOB_NOT_ALLOWED, message))
            measured = await asyncio.to_thread(self._left, release.metadata.name)
        except (LineageError, *PERMANENT_REGISTRY_ERRORS) as error:
            return ReleaseAnswer(condition, Answer.no(Reason.LINEAGE_INVALID, f"{error}."))
        except JobError as error:
            return ReleaseAnswer(condition, Answer.no(Reason.POLICY_REJECTED, f"{error}."))
        except (ResultError, DocumentError) as error:
            message = f"The Job left no usable result: {error}."
            return ReleaseAnswer(condition, Answer.no(Reason.VALIDATION_FAILED, message))
        metrics = _metrics(measured)
        _show(spec.federation, measured)
        decision = self._decided(release, role, verified.contract, metrics, measured)
        statement = await agent.signer.answer(
            release,
            verified,
            decision.answer,
            policy_digest=decision.policy_digest,
            metrics=metrics,
            level=EVALUATED if role is Role.EVALUATOR else ADOPTED,
            at=job_outcome.completed,
        )
        return ReleaseAnswer(condition, decision.answer, statement)

    def _decided(
        self, release: Release, role: Role, contract: Contract, metrics: EvaluationStatus, measured: EvaluationEvidence
    ) -> Decision:
        """Return the only decision on the release: taken once, and kept before anything of it is signed.

        Without an await from decision to adoption, so that no other release is adopted between.
        """
        agent, spec = self._agent, release.spec
        decision = kept(agent.workspace, release)
        if decision is None:
            answer = self._decide(release, measured) if role is Role.TRAINER else _verdict(contract, metrics)
            decision = keep(agent.workspace, release, answer, agent.policy.digest)
        if role is Role.TRAINER and decision.passed:
            # Again after a restart. If a newer one was adopted meanwhile, that one stays.
            agent.champions.adopt(spec.federation, _champion(release, metrics))
        return decision

    def _decide(self, release: Release, measured: EvaluationEvidence) -> Answer:
        """Return the site's decision, compared with what it uses now."""
        agent, spec = self._agent, release.spec
        candidate_ppm = measured.models.candidate.ppm
        incumbent = agent.champions.incumbent(spec.federation, release.metadata.name)
        if incumbent is None:
            in_use, in_use_ppm = "the parent", measured.models.parent.ppm
        elif spec.sequence <= incumbent.sequence:
            return Answer.no(
                Reason.SUPERSEDED,
                f"Sequence {spec.sequence} is not higher than {incumbent.sequence}, "
                f"adopted meanwhile as {incumbent.release}.",
            )
        else:
            in_use, in_use_ppm = f"{incumbent.release}, in use now", self._quality(release, incumbent, measured)
        return decide_adoption(agent.policy.adoption, Comparison(candidate_ppm, in_use_ppm, in_use))

    def _quality(self, release: Release, incumbent: Champion, measured: EvaluationEvidence) -> int:
        """Return the incumbent's quality, measured beside the candidate or, if adopted since then, at its adoption."""
        if self._agent.workspace.note(release.metadata.name, "note").get("champion") != incumbent.release:
            return incumbent.quality_ppm
        return (measured.models.champion or measured.models.parent).ppm

    def _left(self, job: str) -> EvaluationEvidence:
        workspace = self._agent.workspace
        files = workspace.result(job, {EvaluationEvidence.FILE: EvaluationEvidence.LIMIT})
        measured = EvaluationEvidence.from_bytes(files[EvaluationEvidence.FILE])
        for model in workspace.note(job, "note").get("models", []):
            if getattr(measured.models, model) is None:
                raise DocumentError(f"{measured.FILE}: models.{model} is missing, but was to be measured")
        return measured

    async def _write(self, release: Release, answered: ReleaseAnswer) -> None:
        agent = self._agent
        generation = release.metadata.generation
        conditions = ConditionSet(release.status.conditions, generation, agent.clock.now())
        show(conditions, answered.condition, answered.answer)
        reply, mine = answer(conditions.list()), CONDITIONS
        status = ReleaseStatus(decision=answered.decision or release.status.decision)
        if reply is not None:
            show_answer(conditions, reply)
            mine = WITH_ANSWER
            status.observed_generation = generation
        status.conditions = [condition for condition in conditions.list() if condition.type in mine]
        written = await write_status(agent.cluster, release, status, FIELD_MANAGER, mine)
        if written and answered.condition != ConditionType.STAGED:
            DECISIONS.labels(answered.answer.reason.value).inc()


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
        ("image", spec.image, contract.image),
        ("runtimeClassName", spec.runtime_class_name, contract.runtime_class_name),
    ):
        if shown != signed:
            raise LineageError(f"spec.{field} is {shown}, the round's contract says {signed}")


def _champion(release: Release, metrics: EvaluationStatus) -> Champion:
    return Champion(
        release=release.metadata.name,
        sequence=release.spec.sequence,
        artifact=release.spec.adapter,
        quality_ppm=metrics.candidate_ppm,
    )


def _verdict(contract: Contract, metrics: EvaluationStatus) -> Answer:
    return verdict(
        parent_ppm=metrics.parent_ppm,
        candidate_ppm=metrics.candidate_ppm,
        high_ppm=metrics.candidate_high_ppm,
        min_improvement_ppm=contract.evaluation.min_improvement_ppm,
        examples=metrics.examples,
    )


def _metrics(measured: EvaluationEvidence) -> EvaluationStatus:
    candidate = measured.models.candidate
    return EvaluationStatus(
        examples=measured.examples,
        parent_ppm=measured.models.parent.ppm,
        candidate_ppm=candidate.ppm,
        candidate_low_ppm=candidate.low_ppm,
        candidate_high_ppm=candidate.high_ppm,
    )


def _show(federation: str, measured: EvaluationEvidence) -> None:
    for model in ("parent", "candidate", "champion"):
        quality = getattr(measured.models, model)
        if quality is not None:
            LOCAL_QUALITY.labels(federation, "evaluation", model).set(quality.ppm / 1e6)
