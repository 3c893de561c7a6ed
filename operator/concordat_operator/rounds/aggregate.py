"""Steps 7 and 8 of a round: the aggregator Job, and what the operator makes of its report."""

from __future__ import annotations

import asyncio
import logging
from datetime import datetime, timedelta

from concordat.api import ConditionSet, ConditionType, Reason, Release, find
from concordat.api.round_status import AggregateStatus, AggregationStatus, ContractStatus
from concordat.api.types import ArtifactRef
from concordat.api.update import UpdateStatus, Verdict
from concordat.controller import Forbidden, fields, gather_bounded, write_status
from concordat.errors import Terminal, Transient
from concordat.jobs import Failure, JobError, aggregation_job, failure, outcome
from concordat.lineage import LineageError
from concordat.protocol.aggregation import AggregationReport, AggregationRequest, ReportedUpdate, SubmittedUpdate
from concordat.protocol.artifact_types import AGGREGATION_REQUEST
from concordat.protocol.contract import Contract
from concordat_operator import metrics
from concordat_operator.child_jobs import ATTEMPTS, backoff_seconds, own, start
from concordat_operator.create import later
from concordat_operator.finding import Finding
from concordat_operator.hub import VERDICT_FIELD_MANAGER, Hub
from concordat_operator.rounds.aggregation_result import confirm, result
from concordat_operator.rounds.plan import ObservedRound, ancestor
from concordat_operator.rounds.slots import Slot, arrivals
from concordat_operator.signing import publish_verdicts, repository_of
from concordat_operator.sites.quarantine import strike
from concordat_operator.updates.plan import show_ready

log = logging.getLogger(__name__)

CONDITIONS = (ConditionType.VERIFIED, ConditionType.READY, ConditionType.STALLED)
_RIGHTS_MAY_RETURN = timedelta(seconds=15)
"""The round's wait, from the aggregator's end, for a site that does not let its verdict in: as long as an API server
takes to know everyone's rights again, or an upgrade of the site's chart."""


class AggregationStep:
    """Starts the aggregator, confirms what it found, and signs it."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    async def ask(self, observed: ObservedRound, signed: ContractStatus) -> AggregationStatus:
        """Push the request. The round's status fixes what is asked, before there is a Job: nothing later is in it."""
        hub, contract = self._hub, observed.agreed
        request = AggregationRequest(
            contract=signed.artifact,
            contract_digest=signed.sha256,
            contract_key=hub.keys.contract.public.to_pem(),
            gateway_keys=[key.to_pem() for key in hub.keys.gateway],
            submissions=[
                SubmittedUpdate(
                    site=slot.site,
                    artifact=sent.artifact,
                    statement=sent.statement,
                    # Fixed here, and verified by the aggregator: a site can write its status at any time.
                    consent=None if slot.update.status.consent is None else slot.update.status.consent.statement,
                )
                for slot in self._arrived(observed)
                if slot.submitted and slot.update is not None and (sent := slot.update.status.submission) is not None
            ],
            ancestors=self._ancestors(contract),
        )
        files = {request.FILE: await asyncio.to_thread(request.to_bytes)}
        return AggregationStatus(request=await hub.registry.push(repository_of(contract), AGGREGATION_REQUEST, files))

    async def launch(self, observed: ObservedRound) -> Finding | None:
        """Create the Job of the current run. Returns why it is not there yet. Raises Terminal if it is not allowed."""
        hub, aggregation = self._hub, _aggregation(observed)
        try:
            job = aggregation_job(
                observed.round,
                observed.agreed,
                request=aggregation.request,
                image=hub.settings.operator_image,
                registry_url=hub.settings.registry_url,
                gateway_ca=hub.keys.gateway_ca,
                canary_image=hub.settings.learning_image,
                run=aggregation.run,
            )
        except JobError as error:
            raise Terminal(Reason.JOB_NOT_ALLOWED, f"The aggregator Job could not be made: {error}.") from None
        missing = await start(hub, job, again=False)
        if missing is not None and missing.reason == Reason.JOB_NOT_ALLOWED:
            raise Terminal(Reason.JOB_NOT_ALLOWED, missing.message)
        return missing

    async def restart(self, observed: ObservedRound) -> tuple[AggregationStatus, Finding]:
        """Return the next run of a Job that failed or whose result is gone, and why. Raises Terminal after the last."""
        hub, aggregation, job = self._hub, _aggregation(observed), observed.job
        job_outcome = outcome(job)
        if job is None or job_outcome is None:
            raise ValueError("the aggregator has not ended")
        if job_outcome.completed is not None:
            cause = Failure(Reason.AGGREGATION_FAILED, "Its pod was gone before its result was read.")
        else:
            shown = find(observed.round.status.conditions, ConditionType.AGGREGATED)
            cause = failure(job, await own(hub, job), shown)
        if cause.final or aggregation.run >= ATTEMPTS:
            where = f"kubectl logs job/{job['metadata']['name']} -n {job['metadata']['namespace']}"
            raise Terminal(
                Reason.AGGREGATION_FAILED,
                f"The aggregator Job failed, run {aggregation.run} of {ATTEMPTS}: {cause.message} See {where}.",
            )
        following = aggregation.model_copy(
            update={
                "run": aggregation.run + 1,
                "retry_time": later(hub.clock.now(), backoff_seconds(aggregation.run)),
            }
        )
        message = f"Run {aggregation.run} of {ATTEMPTS} failed, and it is run again. {cause.message}"
        return following, Finding(cause.reason, message)

    async def confirm(self, observed: ObservedRound, signed: ContractStatus) -> AggregateStatus | None:
        """Confirm the report, sign it, show the verdicts. None: its result is gone, the Job has to run again.

        Raises Terminal if the report is not what was asked for, RegistryUnavailable, Transient if a site does not let
        its verdict in and may do so in a moment.
        """
        hub, contract, job = self._hub, observed.agreed, observed.job
        job_outcome = outcome(job)
        if job is None or job_outcome is None or job_outcome.completed is None:
            raise ValueError("the aggregator has not ended")
        job_result = result(await own(hub, job))
        if job_result is None:
            return None
        confirmed = await confirm(hub.registry, job_result, _aggregation(observed).request, signed.sha256)
        report = confirmed.report
        try:
            published = await publish_verdicts(
                hub.registry,
                hub.keys,
                contract,
                signed,
                report,
                site_lines=confirmed.site_lines,
                at=job_outcome.completed,
            )
        except LineageError as error:
            # By the functions that a site verifies it with: nothing is proposed that none would adopt.
            raise Terminal(
                Reason.AGGREGATION_FAILED, f"No site would accept the candidate's lineage: {error}."
            ) from None
        await self._show(observed, report, published.verdicts, job_outcome.completed + _RIGHTS_MAY_RETURN)
        for site in report.suspected:
            why, round_uid = _why(observed, report, site), observed.round.metadata.uid
            await strike(hub.cluster, hub.settings.namespace, site, round_uid, job_outcome.completed, why)
        return AggregateStatus(
            report=job_result.report,
            adapter=report.adapter,
            lineage=published.lineage,
            reason=report.reason,
            message=report.message,
            verified=sum(judged.passed for judged in report.verdicts),
            rejected=report.rejected,
            suspected=sorted(report.suspected)[:20],
        )

    def _arrived(self, observed: ObservedRound) -> list[Slot]:
        slots = {slot.site: slot for slot in observed.slots}
        return [slots[site] for site in arrivals(observed.round.status.arrivals, observed.slots)]

    def _ancestors(self, contract: Contract) -> list[ArtifactRef]:
        """Return the adapters that the parent was made from, newest first, at most two; the registry has them."""
        namespace = contract.round.namespace
        parent = self._hub.cache.get(Release, namespace, contract.parent_release.name)
        if parent is None:
            return []
        before = ancestor(parent, self._hub.cache.list(Release, namespace))
        steps = [parent.spec.parent, None if before is None else before.spec.parent]
        return [adapter for adapter in steps if adapter is not None]

    async def _show(
        self, observed: ObservedRound, report: AggregationReport, verdicts: dict[str, ArtifactRef], until: datetime
    ) -> None:
        updates = {slot.site: slot.update for slot in observed.slots if slot.update is not None}

        async def show(judged: ReportedUpdate) -> None:
            update, now = updates[judged.site], self._hub.clock.now()
            conditions = ConditionSet(update.status.conditions, update.metadata.generation, now)
            conditions.set(ConditionType.VERIFIED, judged.passed, judged.reason, f"{judged.message[:1000]}.")
            show_ready(conditions, update, observed.round, now)
            verdict = Verdict(
                reason=judged.reason,
                norm=judged.norm,
                measurements=judged.measurements,
                alerts=judged.alerts,
                attestation=judged.attestation,
                statement=verdicts[judged.site],
            )
            mine = [condition for condition in conditions.list() if condition.type in CONDITIONS]
            status = UpdateStatus(conditions=mine, verdict=verdict)
            if await write_status(self._hub.cluster, update, status, VERDICT_FIELD_MANAGER, CONDITIONS):
                _count(judged, suspected=judged.site in report.suspected)

        there = [judged for judged in report.verdicts if judged.site in updates]
        for judged, error in await gather_bounded(there, show):
            if isinstance(error, Forbidden) and self._hub.clock.now() < until:
                raise Transient(str(error)) from error
            # The site has withdrawn the hub's rights, or is gone. The signed verdict is in the registry.
            log.warning("verdict not shown", extra=fields(site=judged.site, error=str(error)))


def _count(judged: ReportedUpdate, *, suspected: bool) -> None:
    metrics.VERDICTS.labels(judged.reason).inc()
    for alert in judged.alerts:
        metrics.ALERTS.labels(alert).inc()
    if suspected:
        metrics.SUSPICIONS.inc()


def _why(observed: ObservedRound, report: AggregationReport, site: str) -> str:
    judged = next(judged for judged in report.verdicts if judged.site == site)
    return f"round {observed.round.metadata.name}, alerts {', '.join(judged.alerts)}: {judged.message[:250]}"


def _aggregation(observed: ObservedRound) -> AggregationStatus:
    if observed.aggregation is None:
        raise ValueError("the aggregator has not been asked")
    return observed.aggregation
