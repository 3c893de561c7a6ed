"""An Update: consent, stage, submit. One status write each time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from concordat.api import RETRIED_REASONS, Condition, ConditionSet, ConditionType, Reason, Site, Update, find
from concordat.api.update import LEFT_CANDIDATE, Consent, Submission, UpdateStatus
from concordat.artifacts import PERMANENT_REGISTRY_ERRORS, ArtifactError
from concordat.controller import JOB, Key, Result, write_status
from concordat.jobs import JobError, Outcome, is_suspended, outcome, same_job, training_job
from concordat.lora import LoraError
from concordat.protocol.artifact_types import ADAPTER_FILE, MAX_STATEMENT, STATEMENT_FILE
from concordat.protocol.canonical import sha256_digest
from concordat.protocol.contract import Contract
from concordat.protocol.document import DocumentError
from concordat.protocol.locations import PARENT_FOLDER
from concordat.protocol.training import TrainingEvidence, TrainingTask
from concordat.statements.contract import SignedContract
from concordat.tensors import TensorError
from concordat_agent.admission import Refused, admit, demand
from concordat_agent.agent import FIELD_MANAGER, Agent
from concordat_agent.gateway import GrantRefused
from concordat_agent.hub_clock import CLOCK_SECONDS
from concordat_agent.metrics import CONSENTS, LOCAL_QUALITY, SUBMISSIONS
from concordat_agent.policy import Answer
from concordat_agent.signer import ConsentMissing
from concordat_agent.trouble import RETRY_SECONDS, show, trouble
from concordat_agent.updates import gates, grants
from concordat_agent.updates.consent import Request, consent, opening
from concordat_agent.updates.contract import ContractRefused, verify
from concordat_agent.updates.parent import read_parent
from concordat_agent.updates.plan import CONDITIONS, WITH_RESULT, Step, next_step
from concordat_agent.workspace import ResultError

A = TypeVar("A")

# A candidate has its parent's tensors, so its file is as large, give or take the header.
_HEADER_SLACK = 1 << 20
# Consent and staging share one write if staging takes no longer.
_QUICK_SECONDS = 5.0


@dataclass(frozen=True)
class UpdateAnswer:
    """The end of a step: the condition it sets, and what goes beside it."""

    condition: ConditionType
    passed: bool
    reason: Reason
    message: str
    consent: Consent | None = None
    submission: Submission | None = None
    again_in: float | None = None
    """Seconds until the step can be done, where that is known."""


class UpdateReconciler:
    """Answers the hub's requests to take part in rounds."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    async def __call__(self, key: Key) -> Result:
        """Do the next step of one Update. Raises Transient when the API server is out of reach.

        What else is in the way of a step is shown in its condition, and the step is tried again.
        """
        agent = self._agent
        update = agent.cache.get(Update, *key)
        site = agent.cache.get(Site, key[0], agent.site)
        if update is None or site is None:
            return Result()
        if not agent.clock.known:
            return Result(requeue_after=CLOCK_SECONDS)
        job = agent.cache.get(JOB, *key)
        job_outcome = outcome(job)
        step = next_step(update, job_outcome, agent.clock.now(), held=is_suspended(job))
        if step is Step.REST:
            return Result()
        answers = await self._do(step, update, site, job or {}, job_outcome)
        if not answers:
            await self._admitted(update)
            return Result()
        if step is Step.CONSENT and answers[0].passed:
            answers += await self._stage_if_quick(update)
        await self._write(update, answers, trained=job_outcome is not None and job_outcome.completed is not None)
        pending = any(answer.reason in RETRIED_REASONS for answer in answers)
        return Result(requeue_after=RETRY_SECONDS if pending else answers[0].again_in)

    async def _do(
        self, step: Step, update: Update, site: Site, job: dict[str, Any], job_outcome: Outcome | None
    ) -> list[UpdateAnswer]:
        """Do a step; return what there is to say of it."""
        if step is Step.CONSENT:
            return [await _attempt(ConditionType.CONSENTED, self._consent(update, site))]
        if step is Step.STAGE:
            return [await _attempt(ConditionType.STAGED, self._stage(update))]
        if step is Step.ADMIT:
            answer = await _attempt(ConditionType.SUBMITTED, self._admit(update, site, job))
            return [answer] if answer is not None else []
        if step is Step.SUBMIT and job_outcome is not None:
            return [await _attempt(ConditionType.SUBMITTED, self._submit(update, site, job, job_outcome))]
        return [_report(step, update, job_outcome)]

    async def _stage_if_quick(self, update: Update) -> list[UpdateAnswer]:
        """Stage, so that one write shows consent and staging; but a consent must not wait for a long download."""
        left = (update.consent_deadline - self._agent.clock.now()).total_seconds()
        try:
            async with asyncio.timeout(min(_QUICK_SECONDS, left / 2)):
                return [await _attempt(ConditionType.STAGED, self._stage(update))]
        except OSError:  # TimeoutError is one; of any other the next pass makes what has to be made.
            return []

    async def _contract(self, update: Update) -> SignedContract:
        """Return the contract, verified again each time: what is staged or signed rests on nothing else."""
        agent, ref = self._agent, update.spec.contract
        try:
            document = await agent.registry.read(ref, Contract.FILE, Contract.LIMIT)
            statement = await agent.registry.read(ref, Contract.STATEMENT_FILE, Contract.LIMIT)
            shown = update.status.extension
            extension = await agent.registry.read(shown.statement, STATEMENT_FILE, MAX_STATEMENT) if shown else None
        except PERMANENT_REGISTRY_ERRORS as error:
            raise ContractRefused(str(error)) from None
        return verify(
            document,
            statement,
            update=update,
            site=agent.site,
            keys=agent.signer.keys.public,
            trust=agent.trust,
            extension=extension,
        )

    async def _consent(self, update: Update, site: Site) -> UpdateAnswer:
        agent = self._agent
        try:
            signed = await self._contract(update)
        except ContractRefused as refused:
            # Nothing is signed about a contract nobody vouches for.
            return UpdateAnswer(ConditionType.CONSENTED, False, Reason.CONTRACT_INVALID, f"{refused}.")
        request = self._request(signed, site, update.consent_deadline)
        answer, begin = consent(agent.policy, request), opening(agent.policy, request)
        if answer.reason is Reason.WAITING and begin is not None:
            wait = (begin - request.at).total_seconds()
            return UpdateAnswer(ConditionType.CONSENTED, False, answer.reason, answer.message, again_in=wait)
        if answer.passed:
            # Before anything is signed, and without an await since the ledger was read: no other consent is given
            # between, and one repeated after a crash counts once.
            agent.ledger.enter(signed.digest, request.at, signed.contract.budget.max_wall_seconds)
        consented = await agent.signer.consent(update, signed.contract, answer)
        return UpdateAnswer(ConditionType.CONSENTED, answer.passed, answer.reason, answer.message, consent=consented)

    def _request(self, signed: SignedContract, site: Site, deadline: datetime | None = None) -> Request:
        """Return what the site is asked for, as of the moment of its consent if it gave one."""
        ledger = self._agent.ledger
        given = ledger.at(signed.digest)
        at = given or self._agent.clock.now()
        return Request(
            contract=signed.contract,
            federations=[federation.name for federation in site.spec.federations],
            at=at,
            # Who consented already waits for no hours, nor does whoever looks at the contract again.
            deadline=deadline if deadline is not None and given is None else at,
            spent_seconds=ledger.spent_seconds(signed.digest, at),
        )

    async def _look_at(self, update: Update, site: Site, job: dict[str, Any]) -> SignedContract:
        """Return the contract, if the Job is the one it describes and the site still agrees to it.

        Raises ContractRefused, Refused, ArtifactError.
        """
        signed = await self._contract(update)
        answer = consent(self._agent.policy, self._request(signed, site))
        if not answer.passed:
            raise Refused(answer.reason, answer.message.removesuffix("."))
        try:
            difference = same_job(job, training_job(signed.contract, update, site))
        except JobError as error:
            raise Refused(Reason.POLICY_REFUSED, str(error)) from None
        if difference is not None:
            raise Refused(Reason.JOB_NOT_ALLOWED, f"The Job is not the one the contract describes: {difference}")
        return signed

    async def _admit(self, update: Update, site: Site, job: dict[str, Any]) -> UpdateAnswer | None:
        """Let the Job run if it is the right one; return why not if it is not."""
        try:
            signed = await self._look_at(update, site, job)
            # Whatever the status says of it: what is staged already is not fetched again.
            staged = await self._stage(update)
            if not staged.passed:
                return staged
            await grants.to_train(self._agent, update, signed, job)
        except ContractRefused as refused:
            return _not_submitted(Reason.CONTRACT_INVALID, f"{refused}; the Job was not let run.")
        except Refused as refused:
            return _not_submitted(refused.reason, f"{refused}; it was not let run.")
        except GrantRefused as refused:
            return _not_submitted(Reason.GRANT_REFUSED, f"{refused}; the Job was not let run.")
        await admit(self._agent, update, job)
        return None

    async def _admitted(self, update: Update) -> None:
        """Show no longer what was in the way."""
        if find(update.status.conditions, ConditionType.SUBMITTED) is not None:
            await self._write(update, [], trained=False)

    async def _inputs(self, signed: SignedContract) -> dict[str, str]:
        """Return the digests of the files that are staged for the Job. Raises ArtifactError."""
        parent = await self._agent.registry.file_digests(signed.contract.parent)
        return {
            **{f"{PARENT_FOLDER}/{name}": digest for name, digest in parent.items()},
            Contract.FILE: signed.digest,
            TrainingTask.FILE: sha256_digest(TrainingTask(site=self._agent.site).to_bytes()),
        }

    async def _stage(self, update: Update) -> UpdateAnswer:
        workspace, registry, name = self._agent.workspace, self._agent.registry, update.metadata.name
        try:
            signed = await self._contract(update)
            contract = signed.contract
            workspace.prepare(name)
            await registry.pull(contract.base, workspace.base(contract.base.digest))
            await registry.pull(contract.parent, workspace.inputs(name) / PARENT_FOLDER)
        except ContractRefused as refused:
            return UpdateAnswer(ConditionType.STAGED, False, Reason.CONTRACT_INVALID, f"{refused}.")
        except PERMANENT_REGISTRY_ERRORS as error:
            return UpdateAnswer(ConditionType.STAGED, False, Reason.ARTIFACT_UNREADABLE, f"{error}.")
        workspace.write_input(name, Contract.FILE, signed.document)
        workspace.write_input(name, TrainingTask.FILE, TrainingTask(site=self._agent.site).to_bytes())
        return UpdateAnswer(
            ConditionType.STAGED, True, Reason.STAGED, "Base package, parent and contract are verified and staged."
        )

    async def _submit(self, update: Update, site: Site, job: dict[str, Any], job_outcome: Outcome) -> UpdateAnswer:
        agent = self._agent
        if job_outcome.completed is None:
            raise ValueError("a Job that failed has nothing to submit")
        try:
            signed = await self._look_at(update, site, job)
            contract = signed.contract
            await demand(agent, update, job, base=contract.base, inputs=await self._inputs(signed))
            consent_id = await agent.signer.consent_id(update, contract)
            parent, config = await read_parent(agent.registry, agent.workspace, update.metadata.name, contract.parent)
            training, candidate = await asyncio.to_thread(self._left, update.metadata.name, len(parent))
            answer = gates.check_gates(contract, agent.policy, training)
            _show(update.spec.federation, training)
            if not answer.passed:
                return _not_submitted(answer.reason, answer.message)
            learned = await asyncio.to_thread(gates.learned, contract, candidate, parent)
            outgoing = await agent.signer.prepare(contract, learned, gates.adapter(parent, config))
            submission = await agent.signer.update(
                update,
                contract,
                outgoing=outgoing,
                training=training,
                consent_id=consent_id,
                grant=await grants.to_send(agent, update, signed, job, outgoing.digest),
                finished=job_outcome.completed,
            )
        except ContractRefused as refused:
            return _not_submitted(Reason.CONTRACT_INVALID, f"{refused}; nothing was sent.")
        except Refused as refused:
            return _not_submitted(refused.reason, f"{refused}; nothing was sent.")
        except GrantRefused as refused:
            return _not_submitted(Reason.GRANT_REFUSED, f"{refused}; nothing was sent.")
        except ConsentMissing as missing:
            return _not_submitted(Reason.POLICY_REFUSED, f"{missing}; nothing was sent.")
        except PERMANENT_REGISTRY_ERRORS as error:
            return _not_submitted(Reason.ARTIFACT_UNREADABLE, f"{error}; nothing was sent.")
        except (ResultError, DocumentError) as error:
            return _not_submitted(Reason.NO_CANDIDATE, f"The Job left no usable result: {error}.")
        except (TensorError, LoraError) as error:
            return _not_submitted(Reason.GATE_FAILED, f"The candidate is no trained copy of its parent: {error}.")
        cut = f", clipped to {contract.screening.clip_norm}" if submission.clipped else ""
        message = f"Sent an update of norm {submission.norm}{cut}: {answer.message}."
        return UpdateAnswer(ConditionType.SUBMITTED, True, Reason.SUBMITTED, message, submission=submission)

    def _left(self, job: str, parent_size: int) -> tuple[TrainingEvidence, bytes]:
        limits = {TrainingEvidence.FILE: TrainingEvidence.LIMIT, ADAPTER_FILE: parent_size + _HEADER_SLACK}
        files = self._agent.workspace.result(job, limits)
        return TrainingEvidence.from_bytes(files[TrainingEvidence.FILE]), files[ADAPTER_FILE]

    async def _write(self, update: Update, answers: list[UpdateAnswer], *, trained: bool) -> None:
        mine = WITH_RESULT if trained else CONDITIONS
        conditions = ConditionSet(
            (c for c in update.status.conditions if c.type in mine),
            update.metadata.generation,
            self._agent.clock.now(),
        )
        for answered in answers:
            show(conditions, answered.condition, Answer(answered.passed, answered.reason, answered.message))
        if not answers:
            conditions.drop(ConditionType.SUBMITTED)
        if trained:
            conditions.set(ConditionType.TRAINED, True, Reason.TRAINED, LEFT_CANDIDATE)
        status = UpdateStatus(
            conditions=conditions.list(),
            consent=next((a.consent for a in answers if a.consent), update.status.consent),
            submission=next((a.submission for a in answers if a.submission), update.status.submission),
        )
        if await write_status(self._agent.cluster, update, status, FIELD_MANAGER, mine):
            for answered in answers:
                _count(answered)


async def _attempt(condition: ConditionType, step: Awaitable[A]) -> A | UpdateAnswer:
    """Do a step; return what is in its way if it cannot be done at present."""
    try:
        return await step
    except (ArtifactError, OSError) as error:
        if (obstacle := trouble(error)) is None:
            raise
        return UpdateAnswer(condition, obstacle.passed, obstacle.reason, obstacle.message)


def _report(step: Step, update: Update, job_outcome: Outcome | None) -> UpdateAnswer:
    """Return the answer for a step that needs neither registry nor workspace."""
    if step is Step.REPORT_NO_CONSENT:
        message = f"The consent deadline {update.consent_deadline.isoformat()} has passed; nothing was signed."
        obstacle = find(update.status.conditions, ConditionType.CONSENTED)
        return UpdateAnswer(ConditionType.CONSENTED, False, Reason.DEADLINE_EXCEEDED, message + _in_the_way(obstacle))
    if step is Step.REPORT_LATE:
        obstacle = find(update.status.conditions, ConditionType.SUBMITTED)
        message = (
            f"The submission deadline {update.submission_deadline.isoformat()} passed before the update could be sent"
            if obstacle is not None
            else f"Training ended after the round's submission deadline {update.submission_deadline.isoformat()}"
        )
        return _not_submitted(Reason.DEADLINE_EXCEEDED, f"{message}; nothing was sent." + _in_the_way(obstacle))
    return _not_submitted(
        Reason.NO_CANDIDATE,
        f"The training Job failed ({job_outcome.message if job_outcome else 'gone'}); see condition Trained.",
    )


def _in_the_way(obstacle: Condition | None) -> str:
    return f" Until then: {obstacle.reason}: {obstacle.message}" if obstacle is not None else ""


def _count(answered: UpdateAnswer) -> None:
    if answered.condition == ConditionType.CONSENTED:
        CONSENTS.labels(answered.reason.value).inc()
    elif answered.condition == ConditionType.SUBMITTED:
        SUBMISSIONS.labels(answered.reason.value).inc()


def _not_submitted(reason: Reason, message: str) -> UpdateAnswer:
    return UpdateAnswer(ConditionType.SUBMITTED, False, reason, message)


def _show(federation: str, training: TrainingEvidence) -> None:
    LOCAL_QUALITY.labels(federation, "training", "parent").set(training.parent_ppm / 1e6)
    LOCAL_QUALITY.labels(federation, "training", "candidate").set(training.candidate_ppm / 1e6)
