"""A copy of a Release: verify and stage, judge. One step and one status write each time.

The evaluator judges candidates in the same way; only what verifies and what the answer is called differ.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from concordat.api import RETRIED_REASONS, ConditionSet, ConditionType, Reason, Release, Role, Site, find
from concordat.api.release import Decision as DecisionStatus
from concordat.api.release import ReleaseStatus, answer, show_answer
from concordat.api.round_status import EvaluationStatus
from concordat.api.site import Champion
from concordat.api.types import ArtifactRef
from concordat.artifacts import PERMANENT_REGISTRY_ERRORS, ArtifactError, ArtifactNotFound
from concordat.controller import JOB, Key, Result, write_status
from concordat.jobs import JobError, Outcome, evaluation_job, is_suspended, outcome, same_job
from concordat.lineage import LineageError
from concordat.protocol.canonical import sha256_digest
from concordat.protocol.contract import Contract
from concordat.protocol.document import DocumentError
from concordat.protocol.evaluation import EvaluationEvidence, EvaluationTask, ModelName
from concordat.statements.names import ADOPTED, EVALUATED
from concordat_agent.admission import Refused, admit, demand
from concordat_agent.agent import FIELD_MANAGER, Agent
from concordat_agent.metrics import DECISIONS, LOCAL_QUALITY
from concordat_agent.policy import Answer
from concordat_agent.releases.acceptance import refusal
from concordat_agent.releases.adoption import Comparison, decide_adoption, objection
from concordat_agent.releases.decision import Compared, Decision
from concordat_agent.releases.plan import CONDITIONS, WITH_ANSWER, Step, answer_condition, next_step
from concordat_agent.releases.verdict import verdict
from concordat_agent.releases.verified import verified
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
        step = next_step(release, site.spec.role, job_outcome, held=is_suspended(job))
        if step is Step.REST:
            return Result()
        answered = await self._attempt(step, release, site, job or {}, job_outcome)
        if answered is None:
            await self._admitted(release, site.spec.role)
            return Result()
        await self._write(release, answered)
        pending = answered.answer.reason in RETRIED_REASONS
        return Result(requeue_after=RETRY_SECONDS if pending else None)

    async def _attempt(
        self, step: Step, release: Release, site: Site, job: dict[str, Any], job_outcome: Outcome | None
    ) -> ReleaseAnswer | None:
        """Do a step; return what there is to say of it, or what is in its way if it cannot be done at present."""
        condition = ConditionType.STAGED if step is Step.STAGE else answer_condition(site.spec.role)
        try:
            if step is Step.STAGE:
                return ReleaseAnswer(condition, await self._stage(release, site))
            if step is Step.ADMIT:
                return await self._admit(release, site, job)
            if step is Step.JUDGE and job_outcome is not None:
                return await self._decide_on(release, site, job, job_outcome)
        except (ArtifactError, OSError) as error:
            if (obstacle := trouble(error)) is None:
                raise
            return ReleaseAnswer(condition, obstacle)
        failure = job_outcome.message if job_outcome is not None else "gone"
        message = f"The evaluation Job failed ({failure}); see condition Validated."
        return ReleaseAnswer(condition, Answer.no(Reason.VALIDATION_FAILED, message))

    async def _acceptable(self, release: Release, site: Site) -> Verified:
        """Return what the lineage says, if the site's rules let the release be measured here at all.

        Raises Refused, LineageError, ArtifactError.
        """
        against = refusal(self._agent.policy, release, site)
        if against is not None:
            raise Refused(Reason.POLICY_REJECTED, against)
        return await verified(self._agent, release, site.spec.role)

    async def _look_at(self, release: Release, site: Site, job: dict[str, Any]) -> Verified:
        """Return what the lineage says, if the Job is the one that the release describes.

        Raises Refused, LineageError, ArtifactError.
        """
        proved = await self._acceptable(release, site)
        try:
            difference = same_job(job, evaluation_job(release, site))
        except JobError as error:
            raise Refused(Reason.POLICY_REJECTED, str(error)) from None
        if difference is not None:
            raise Refused(Reason.JOB_NOT_ALLOWED, f"The Job is not the one the release describes: {difference}")
        return proved

    async def _admit(self, release: Release, site: Site, job: dict[str, Any]) -> ReleaseAnswer | None:
        """Let the Job run if it is the right one; return why not if it is not."""
        try:
            await self._look_at(release, site, job)
        except Refused as refused:
            return ReleaseAnswer(answer_condition(site.spec.role), Answer.no(refused.reason, f"{refused}."))
        except (LineageError, *PERMANENT_REGISTRY_ERRORS) as error:
            return ReleaseAnswer(answer_condition(site.spec.role), Answer.no(Reason.LINEAGE_INVALID, f"{error}."))
        if self._agent.notes.of(release, Compared) is None:
            # Whatever the status says of it.
            staged = await self._stage(release, site)
            if not staged.passed:
                return ReleaseAnswer(ConditionType.STAGED, staged)
        await admit(self._agent, release, job)
        return None

    async def _inputs(self, compared: Compared) -> dict[str, str]:
        """Return the digests of the files that are staged for the Job. Raises ArtifactError."""
        found = {EvaluationTask.FILE: sha256_digest(compared.task.to_bytes())}
        for model, ref in compared.models.items():
            digests = await self._agent.registry.file_digests(ref)
            found |= {f"{model}/{name}": digest for name, digest in digests.items()}
        return found

    async def _stage(self, release: Release, site: Site) -> Answer:
        agent, spec, name = self._agent, release.spec, release.metadata.name
        workspace, registry, role = agent.workspace, agent.registry, site.spec.role
        incumbent = agent.champions.incumbent(spec.federation, name, spec.adapter)
        try:
            proved = await self._acceptable(release, site)
            if role is Role.TRAINER and incumbent is not None and spec.sequence <= incumbent.sequence:
                raise LineageError(
                    f"sequence {spec.sequence} is not higher than {incumbent.sequence}, which this site adopted as "
                    f"{incumbent.release}; a way back is a new release with a higher sequence"
                )
            parent = proved.contract.parent
            models: dict[ModelName, ArtifactRef] = {"parent": parent, "candidate": spec.adapter}
            if incumbent is not None and incumbent.artifact != parent:
                if await self._gone(incumbent.artifact):
                    # The hub no longer keeps it. What was measured of it then is still known here.
                    incumbent = None
                else:
                    models["champion"] = incumbent.artifact
            compared = Compared(
                models=models,
                champion=incumbent.release if incumbent is not None else None,
                confidence_ppm=spec.confidence_ppm or _DEFAULT_CONFIDENCE_PPM,
            )
            if agent.notes.of(release, Compared) not in (None, compared):
                # An earlier try, before another release was adopted: its models lie under the same names.
                workspace.discard({name} & workspace.jobs())
            agent.notes.keep(release, compared)
            workspace.prepare(name)
            await registry.pull(spec.base, workspace.base(spec.base.digest))
            for model, ref in models.items():
                await registry.pull(ref, workspace.inputs(name) / model)
        except Refused as refused:
            return Answer.no(refused.reason, f"{refused}.")
        except LineageError as error:
            return Answer.no(Reason.LINEAGE_INVALID, f"{error}.")
        except PERMANENT_REGISTRY_ERRORS as error:
            return Answer.no(Reason.ARTIFACT_UNREADABLE, f"{error}.")
        workspace.write_input(name, EvaluationTask.FILE, compared.task.to_bytes())
        return Answer.yes(Reason.LINEAGE_VERIFIED, f"Lineage verified offline; {', '.join(models)} are staged.")

    async def _gone(self, artifact: ArtifactRef) -> bool:
        try:
            await self._agent.registry.files(artifact)
        except ArtifactNotFound:
            return True
        return False

    async def _decide_on(
        self, release: Release, site: Site, job: dict[str, Any], job_outcome: Outcome
    ) -> ReleaseAnswer:
        agent, spec, role = self._agent, release.spec, site.spec.role
        condition = answer_condition(role)
        if job_outcome.completed is None:
            raise ValueError("a Job that failed has no metrics to judge")
        try:
            proved = await self._look_at(release, site, job)
            compared = agent.notes.of(release, Compared)
            if compared is None:
                raise Refused(Reason.JOB_NOT_ALLOWED, "The Job ran without this agent having staged anything for it")
            await demand(agent, release, job, base=spec.base, inputs=await self._inputs(compared))
            measured = await asyncio.to_thread(self._left, release.metadata.name, compared)
        except (LineageError, *PERMANENT_REGISTRY_ERRORS) as error:
            return ReleaseAnswer(condition, Answer.no(Reason.LINEAGE_INVALID, f"{error}."))
        except Refused as refused:
            return ReleaseAnswer(condition, Answer.no(refused.reason, f"{refused}."))
        except (ResultError, DocumentError) as error:
            message = f"The Job left no usable result: {error}."
            return ReleaseAnswer(condition, Answer.no(Reason.VALIDATION_FAILED, message))
        metrics = _metrics(measured)
        _show(spec.federation, measured)
        decision = self._decided(release, role, proved.contract, compared, measured)
        statement = await agent.signer.answer(
            release,
            proved,
            decision.answer,
            policy_digest=decision.policy_digest,
            metrics=metrics,
            level=EVALUATED if role is Role.EVALUATOR else ADOPTED,
            at=job_outcome.completed,
            key=site.status.accepted_key.thumbprint if site.status.accepted_key is not None else None,
        )
        return ReleaseAnswer(condition, decision.answer, statement)

    def _decided(
        self, release: Release, role: Role, contract: Contract, compared: Compared, measured: EvaluationEvidence
    ) -> Decision:
        """Return the only decision on the release: taken once, and kept before anything of it is signed.

        Without an await from decision to adoption, so that no other release is adopted between.
        """
        agent, spec, metrics = self._agent, release.spec, _metrics(measured)
        decision = agent.notes.of(release, Decision)
        if decision is None:
            judged = self._decide(release, compared, measured, contract if role is Role.EVALUATOR else None)
            decision = Decision(
                passed=judged.passed,
                reason=judged.reason,
                message=judged.message,
                policy_digest=agent.policy.digest,
            )
            agent.notes.keep(release, decision)
        if decision.passed:
            # Again after a restart. If a newer one was adopted meanwhile, that one stays. An evaluator's champion is
            # the newest that it approved.
            agent.champions.adopt(spec.federation, _champion(release, metrics))
        return decision

    def _decide(
        self, release: Release, compared: Compared, measured: EvaluationEvidence, contract: Contract | None
    ) -> Answer:
        """Return the decision, compared with the champion; with a contract, an evaluator's on its round's candidate."""
        agent, spec = self._agent, release.spec
        incumbent = agent.champions.incumbent(spec.federation, release.metadata.name, spec.adapter)
        known = "in use now" if contract is None else "approved last"
        if incumbent is None:
            comparison = Comparison(measured.models.candidate.ppm, measured.models.parent.ppm, "the parent")
        elif contract is None and spec.sequence <= incumbent.sequence:
            return Answer.no(
                Reason.SUPERSEDED,
                f"Sequence {spec.sequence} is not higher than {incumbent.sequence}, "
                f"adopted meanwhile as {incumbent.release}.",
            )
        else:
            quality = _quality(incumbent, compared, measured)
            comparison = Comparison(measured.models.candidate.ppm, quality, f"{incumbent.release}, {known}")
        if contract is None:
            return decide_adoption(agent.policy, comparison)
        own = objection(agent.policy, comparison)
        found = _verdict(contract, _metrics(measured))
        return found if own is None or not found.passed else Answer.no(Reason.REJECTED, f"Rejected: {own.message}")

    def _left(self, job: str, compared: Compared) -> EvaluationEvidence:
        files = self._agent.workspace.result(job, {EvaluationEvidence.FILE: EvaluationEvidence.LIMIT})
        measured = EvaluationEvidence.from_bytes(files[EvaluationEvidence.FILE])
        for model in compared.models:
            if getattr(measured.models, model) is None:
                raise DocumentError(f"{measured.FILE}: models.{model} is missing, but was to be measured")
        return measured

    async def _admitted(self, release: Release, role: Role) -> None:
        """Show no longer what was in the way."""
        conditions = [c for c in release.status.conditions if c.type in CONDITIONS and c.type != answer_condition(role)]
        if find(release.status.conditions, answer_condition(role)) is not None:
            status = ReleaseStatus(conditions=conditions, decision=release.status.decision)
            await write_status(self._agent.cluster, release, status, FIELD_MANAGER, CONDITIONS)

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


def _quality(incumbent: Champion, compared: Compared, measured: EvaluationEvidence) -> int:
    """Return the incumbent's quality, measured beside the candidate or, if it was not, at its adoption."""
    if compared.champion != incumbent.release:
        return incumbent.quality_ppm
    return (measured.models.champion or measured.models.parent).ppm


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
