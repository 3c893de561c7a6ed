"""An Update: consent, stage, submit. One step and one status write each time."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from concordat.api import ConditionSet, ConditionType, Reason, Site, Update
from concordat.api.update import Consent, Submission, UpdateStatus
from concordat.artifacts import PERMANENT_REGISTRY_ERRORS
from concordat.controller import JOB, Key, Result, write_status
from concordat.jobs import JobError, Outcome, outcome, same_job, training_job
from concordat.lora import LoraError
from concordat.protocol.artifact_types import ADAPTER_CONFIG_FILE, ADAPTER_FILE, MAX_STATEMENT, STATEMENT_FILE
from concordat.protocol.contract import Contract
from concordat.protocol.document import DocumentError
from concordat.protocol.locations import PARENT_FOLDER
from concordat.protocol.training import TrainingEvidence, TrainingTask
from concordat.statements.contract import SignedContract
from concordat.tensors import TensorError
from concordat_agent.agent import FIELD_MANAGER, Agent
from concordat_agent.metrics import CONSENTS, LOCAL_QUALITY, SUBMISSIONS
from concordat_agent.signer import ConsentMissing
from concordat_agent.updates import gates
from concordat_agent.updates.consent import consent
from concordat_agent.updates.contract import ContractRefused, verify
from concordat_agent.updates.plan import CONDITIONS, Step, next_step
from concordat_agent.workspace import ResultError

_ADAPTER_LIMIT = 1 << 30
# A candidate has its parent's tensors, so its file is as large, give or take the header.
_HEADER_SLACK = 1 << 20


@dataclass(frozen=True)
class UpdateAnswer:
    """The end of a step: the condition it sets, and what goes beside it."""

    condition: ConditionType
    passed: bool
    reason: Reason
    message: str
    consent: Consent | None = None
    submission: Submission | None = None


class UpdateReconciler:
    """Answers the hub's requests to take part in rounds."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    async def __call__(self, key: Key) -> Result:
        """Do the next step of one Update. Raises Transient when the registry or the API server is out of reach."""
        agent = self._agent
        update = agent.cache.get(Update, *key)
        site = agent.cache.get(Site, key[0], agent.site)
        if update is None or site is None:
            return Result()
        job = agent.cache.get(JOB, *key)
        job_outcome = outcome(job)
        step = next_step(update, job_outcome, agent.clock.now())
        if step is Step.REST:
            return Result()
        answered = await self._do(step, update, site, job or {}, job_outcome)
        await self._write(update, answered)
        return Result()

    async def _do(
        self, step: Step, update: Update, site: Site, job: dict[str, Any], job_outcome: Outcome | None
    ) -> UpdateAnswer:
        if step is Step.CONSENT:
            return await self._consent(update, site)
        if step is Step.STAGE:
            return await self._stage(update)
        if step is Step.SUBMIT and job_outcome is not None:
            return await self._submit(update, site, job, job_outcome)
        if step is Step.REPORT_LATE:
            return _not_submitted(
                Reason.DEADLINE_EXCEEDED,
                "Training ended after the round's submission deadline "
                f"{update.submission_deadline.isoformat()}; nothing was sent.",
            )
        return _not_submitted(
            Reason.NO_CANDIDATE,
            f"The training Job failed ({job_outcome.message if job_outcome else 'gone'}); see condition Trained.",
        )

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
            key=agent.signer.public_key,
            trust=agent.trust,
            extension=extension,
        )

    async def _consent(self, update: Update, site: Site) -> UpdateAnswer:
        agent = self._agent
        try:
            contract = (await self._contract(update)).contract
        except ContractRefused as refused:
            # Nothing is signed about a contract nobody vouches for.
            return UpdateAnswer(ConditionType.CONSENTED, False, Reason.CONTRACT_INVALID, f"{refused}.")
        if agent.clock.now() >= update.consent_deadline:
            deadline = update.consent_deadline.isoformat()
            return UpdateAnswer(
                ConditionType.CONSENTED, False, Reason.CONTRACT_INVALID, f"consentDeadline {deadline} has passed."
            )
        answer = consent(agent.policy, contract, site)
        signed = await agent.signer.consent(update, answer)
        return UpdateAnswer(ConditionType.CONSENTED, answer.passed, answer.reason, answer.message, consent=signed)

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
            contract = (await self._contract(update)).contract
            if difference := same_job(job, training_job(contract, update, site)):
                return _not_submitted(
                    Reason.JOB_NOT_ALLOWED, f"The Job is not the one the contract describes: {difference}."
                )
            consent_id = await agent.signer.consent_id(update)
            parent = await agent.registry.read(contract.parent, ADAPTER_FILE, _ADAPTER_LIMIT)
            training, candidate = await asyncio.to_thread(self._left, update.metadata.name, len(parent))
            answer = gates.check_gates(contract, agent.policy, training)
            _show(update.spec.federation, training)
            if not answer.passed:
                return _not_submitted(answer.reason, answer.message)
            learned = await asyncio.to_thread(gates.learned, contract, candidate, parent)
            config = await agent.registry.read(contract.parent, ADAPTER_CONFIG_FILE)
            submission = await agent.signer.update(
                update,
                contract,
                learned=learned,
                parent=gates.adapter(parent, config),
                training=training,
                consent_id=consent_id,
                finished=job_outcome.completed,
            )
        except ContractRefused as refused:
            return _not_submitted(Reason.CONTRACT_INVALID, f"{refused}; nothing was sent.")
        except JobError as error:
            return _not_submitted(Reason.POLICY_REFUSED, f"{error}; nothing was sent.")
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

    async def _write(self, update: Update, answered: UpdateAnswer) -> None:
        conditions = ConditionSet(
            (c for c in update.status.conditions if c.type in CONDITIONS),
            update.metadata.generation,
            self._agent.clock.now(),
        )
        conditions.set(answered.condition, answered.passed, answered.reason, answered.message)
        status = UpdateStatus(
            conditions=conditions.list(),
            consent=answered.consent or update.status.consent,
            submission=answered.submission or update.status.submission,
        )
        if await write_status(self._agent.cluster, update, status, FIELD_MANAGER, CONDITIONS):
            if answered.condition == ConditionType.CONSENTED:
                CONSENTS.labels(answered.reason.value).inc()
            elif answered.condition == ConditionType.SUBMITTED:
                SUBMISSIONS.labels(answered.reason.value).inc()


def _not_submitted(reason: Reason, message: str) -> UpdateAnswer:
    return UpdateAnswer(ConditionType.SUBMITTED, False, reason, message)


def _show(federation: str, training: TrainingEvidence) -> None:
    LOCAL_QUALITY.labels(federation, "training", "parent").set(training.parent_ppm / 1e6)
    LOCAL_QUALITY.labels(federation, "training", "candidate").set(training.candidate_ppm / 1e6)
