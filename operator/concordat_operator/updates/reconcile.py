"""An Update: attest, launch the training Job, show how it went (`plan.update`)."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from concordat.api import ConditionSet, ConditionType, FederationRound, Reason, Site, Update, find, is_pending, is_true
from concordat.api.update import LEFT_CANDIDATE, UpdateSpec, UpdateStatus
from concordat.artifacts import PERMANENT_REGISTRY_ERRORS
from concordat.controller import JOB, Forbidden, Key, NotFound, Result, fields
from concordat.jobs import JobError, answers_soon, failure, outcome, training_job
from concordat.protocol.artifact_types import MAX_STATEMENT, STATEMENT_FILE
from concordat.protocol.contract import Contract
from concordat.statements import PublicKey, StatementError, open_bundle
from concordat.statements.names import agent_id
from concordat.statements.summary import read_summary
from concordat_operator import metrics
from concordat_operator.child_jobs import RETRY_SECONDS, not_running, own, requeue_seconds, show, start
from concordat_operator.finding import Finding
from concordat_operator.hub import Hub
from concordat_operator.updates.plan import CONDITIONS, Step, expired, next_step, show_ready

log = logging.getLogger(__name__)


Found = tuple[ConditionType, bool, Finding]
"""A condition, whether it holds, and why."""


class UpdateReconciler:
    """Attends to one site's slot in a round."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    async def __call__(self, key: Key) -> Result:
        """Do the next step of one Update. Raises Transient when the registry or the API server is out of reach."""
        hub = self._hub
        update = hub.cache.get(Update, *key)
        if update is None or update.spec.round_ref.namespace != hub.settings.namespace:
            return Result()
        round_ = hub.cache.get(FederationRound, hub.settings.namespace, update.spec.round_ref.name)
        if round_ is not None and round_.metadata.uid != update.spec.round_ref.uid:
            round_ = None
        job = hub.cache.get(JOB, *key)
        step = next_step(update, round_, job, hub.clock.now())
        if step is Step.REMOVE:
            await self._remove(update)
            return Result()
        found: list[Found] = []
        if step is Step.ATTEST:
            proved = await self._attest(update, await hub.contract(update.spec.contract))
            metrics.ATTESTATIONS.labels(proved.reason).inc()
            found = [(ConditionType.ATTESTATION_VALID, proved.reason == Reason.KEY_POSSESSION_PROVED, proved)]
            if next_step(_shown(update, found, hub.clock.now()), round_, job, hub.clock.now()) is Step.LAUNCH:
                # One write for both: where the site has staged by now, its Job is made in the same pass.
                missing = await self._launch(update, await hub.contract(update.spec.contract))
                found.append((ConditionType.TRAINED, False, missing or _runs(*key)))
        elif step is Step.LAUNCH:
            missing = await self._launch(update, await hub.contract(update.spec.contract))
            found = [(ConditionType.TRAINED, False, missing)] if missing is not None else []
        elif step is Step.STOP:
            if job is not None:
                await hub.cluster.delete(JOB, *key, job["metadata"]["uid"])
            stopped = "The round went on without this site while its training Job still ran; the Job was stopped."
            found = [(ConditionType.TRAINED, False, Finding(Reason.STOPPED, stopped))]
        elif step is Step.EXPIRE:
            found = [(ConditionType.TRAINED, False, expired(update))]
        elif step is Step.REPORT and job is not None:
            found = [(ConditionType.TRAINED, *await self._progress(update, job))]
        await self._write(update, round_, found)
        return Result(self._requeue_after(update, step, job))

    def _requeue_after(self, update: Update, step: Step, job: Mapping[str, Any] | None) -> float | None:
        """Return in how many seconds to look again though nothing happens; None: never."""
        now = self._hub.clock.now()
        if step is Step.LAUNCH:
            # Where the Job was made, its first event comes earlier.
            return min(RETRY_SECONDS, max((update.submission_deadline - now).total_seconds(), 0.0))
        waits = step is Step.REPORT or (
            step is Step.REST and is_pending(update.status.conditions, ConditionType.TRAINED)
        )
        if not waits:
            return None
        return requeue_seconds(job, now) if outcome(job) is None else answers_soon(job, now)

    async def _remove(self, update: Update) -> None:
        """Stop the Job of an Update and delete both, if the API server too knows no such round."""
        hub, ref = self._hub, update.spec.round_ref
        try:
            found = await hub.cluster.get(FederationRound, ref.namespace, ref.name)
        except NotFound:
            pass
        else:
            if found["metadata"]["uid"] == ref.uid:
                return  # The cache has not seen it yet; its arrival leads here again.
        log.warning(
            "update of a round that is gone", extra=fields(namespace=update.metadata.namespace, round_uid=ref.uid)
        )
        try:
            await hub.cluster.delete(JOB, *update.key)
            await hub.cluster.delete(Update, *update.key, update.metadata.uid)
        except Forbidden as error:
            # The site has withdrawn the hub's rights; what the round left there is the site's to remove.
            log.warning("not removed", extra=fields(namespace=update.metadata.namespace, error=str(error)))

    async def _attest(self, update: Update, contract: Contract) -> Finding:
        """Read the consent from the registry and judge it."""
        consent = update.status.consent
        if consent is None:
            return _unproved("there is no signed consent")
        try:
            data = await self._hub.registry.read(consent.statement, STATEMENT_FILE, MAX_STATEMENT)
        except PERMANENT_REGISTRY_ERRORS as error:
            return _unproved(str(error))
        return attested(update.spec, contract, data)

    async def _launch(self, update: Update, contract: Contract) -> Finding | None:
        """Create the Job. Returns why there is none, which is pending unless it stays so."""
        hub, site_name = self._hub, update.spec.site
        site = hub.cache.get(Site, update.metadata.namespace, site_name)
        if site is None:
            return Finding(Reason.SITE_NOT_FOUND, f"Site {site_name} is gone, so no training Job can be made for it.")
        try:
            job = training_job(contract, update, site)
        except JobError as error:
            return Finding(Reason.JOB_NOT_ALLOWED, f"The training Job could not be created: {error}.")
        again = find(update.status.conditions, ConditionType.TRAINED) is not None
        finding = await start(hub, job, again=again)
        if finding is None:
            metrics.JOBS.labels("train").inc()
        return finding

    async def _progress(self, update: Update, job: Mapping[str, Any]) -> tuple[bool, Finding]:
        name, namespace = job["metadata"]["name"], job["metadata"]["namespace"]
        job_outcome = outcome(job)
        if job_outcome is None:
            return False, await not_running(self._hub, job) or _runs(namespace, name)
        if job_outcome.completed is not None:
            return True, Finding(Reason.TRAINED, LEFT_CANDIDATE)
        shown = find(update.status.conditions, ConditionType.TRAINED)
        cause = failure(job, await own(self._hub, job), shown)
        return False, Finding(cause.reason, cause.message)

    async def _write(self, update: Update, round_: FederationRound | None, found: Sequence[Found]) -> None:
        """Show what was found, and what it means for the whole; no request where nothing changed."""
        generation, conditions = update.metadata.generation, update.status.conditions
        now = self._hub.clock.now()
        shown = _conditions(update, found, now)
        show_ready(shown, update, round_, now)
        fresh = not found and find(conditions, ConditionType.READY) is None
        if update.metadata.deletion_timestamp is not None or (fresh and not shown.is_true(ConditionType.STALLED)):
            return  # There is nothing to say of it yet.
        mine = [condition for condition in shown.list() if condition.type in CONDITIONS]
        status = UpdateStatus(observed_generation=generation, conditions=mine)
        waited_for = round_ is not None and not round_.ended and not is_true(conditions, ConditionType.SUBMITTED)
        await show(self._hub, update, status, CONDITIONS, until=update.submission_deadline if waited_for else None)


def _runs(namespace: str, job: str) -> Finding:
    return Finding(Reason.TRAINING, f"The training Job is launched: kubectl logs job/{job} -n {namespace}.")


def _conditions(update: Update, found: Sequence[Found], now: datetime) -> ConditionSet:
    """Return the Update's conditions with what was found."""
    conditions = ConditionSet(update.status.conditions, update.metadata.generation, now)
    for condition, holds, why in found:
        conditions.set(condition, holds, why.reason, why.message)
    return conditions


def _shown(update: Update, found: Sequence[Found], now: datetime) -> Update:
    """Return the Update as it will be once what was found is shown."""
    status = update.status.model_copy(update={"conditions": _conditions(update, found, now).list()})
    return update.model_copy(update={"status": status})


def attested(spec: UpdateSpec, contract: Contract, consent: bytes) -> Finding:
    """Judge a consent: a statement by the key that the contract names for this site, about this contract."""
    site = contract.site(spec.site)
    if site is None:
        return _unproved(f"the contract does not name {spec.site}")
    try:
        summary = read_summary(open_bundle(consent, [PublicKey.from_pem(site.public_key)]))
    except StatementError as error:
        return _unproved(str(error))
    if not summary.passed or summary.subject != spec.contract_digest:
        return _unproved("the signed statement is no consent to this contract")
    if summary.site != spec.site or summary.verifier != agent_id(spec.site):
        return _unproved("the signed statement names another site")
    return Finding(
        Reason.KEY_POSSESSION_PROVED,
        f"The consent is signed with key {site.key_thumbprint}. This proves possession of the key, "
        "not what code runs at the site.",
    )


def _unproved(why: str) -> Finding:
    return Finding(Reason.KEY_POSSESSION_NOT_PROVED, f"The consent is not valid: {why}.")
