"""Steps 7 and 8 of a round: the aggregator Job, and what the operator makes of its report."""

from __future__ import annotations

from datetime import datetime

from concordat.api import ConditionSet, ConditionType, Reason, Release, Update
from concordat.api.round_status import AggregateStatus, ContractStatus
from concordat.api.types import ArtifactRef
from concordat.api.update import UpdateStatus, Verdict
from concordat.controller import JOB, write_status
from concordat.jobs import aggregation_job, outcome
from concordat.protocol.aggregation import AggregationReport, AggregationRequest, SubmittedUpdate
from concordat.protocol.artifact_types import AGGREGATION_REQUEST
from concordat.protocol.contract import Contract
from concordat_operator import metrics
from concordat_operator.create import create_job
from concordat_operator.hub import VERDICT_FIELD_MANAGER, Hub
from concordat_operator.rounds.aggregation_result import confirm, request_of, result
from concordat_operator.rounds.plan import ObservedRound
from concordat_operator.signing import publish_verdicts, repository_of
from concordat_operator.sites.quarantine import quarantine
from concordat_operator.text import until

CONDITIONS = (ConditionType.VERIFIED,)
_HISTORY = 20


class AggregationStep:
    """Starts the aggregator, confirms what it found, and signs it."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    async def start(self, observed: ObservedRound, signed: ContractStatus) -> None:
        """Push the request and create the Job. The Job fixes what was asked: a later submission is not in it."""
        hub, contract = self._hub, _contract(observed)
        request = AggregationRequest(
            contract=signed.artifact,
            contract_digest=signed.sha256,
            contract_key=hub.keys.contract.public.to_pem(),
            submissions=[
                SubmittedUpdate(
                    site=slot.site,
                    artifact=sent.artifact,
                    statement=sent.statement,
                    # Fixed here, and verified by the aggregator: a site can write its status at any time.
                    consent=None if slot.update.status.consent is None else slot.update.status.consent.statement,
                )
                for slot in observed.slots
                if slot.submitted and slot.update is not None and (sent := slot.update.status.submission) is not None
            ],
            previous=self._previous(contract),
            history={
                slot.site: past
                for slot in observed.slots
                if slot.update is not None and (past := self._history(slot.update))
            },
        )
        files = {request.FILE: request.to_bytes()}
        ref = await hub.registry.push(repository_of(contract), AGGREGATION_REQUEST, files)
        job = aggregation_job(
            observed.round,
            contract,
            request=ref,
            image=hub.settings.operator_image,
            registry_url=hub.settings.registry_url,
        )
        await create_job(hub.cluster, job)

    async def confirm(self, observed: ObservedRound, signed: ContractStatus) -> AggregateStatus | None:
        """Confirm the report, sign it, show the verdicts. None: the Job has to run again, its result is gone.

        Raises Terminal if the report is not what was asked for, RegistryUnavailable.
        """
        hub, contract, job = self._hub, _contract(observed), observed.job
        job_outcome = outcome(job)
        if job is None or job_outcome is None or job_outcome.completed is None:
            raise ValueError("the aggregator has not ended")
        namespace, name = job["metadata"]["namespace"], job["metadata"]["name"]
        job_result = result(await hub.cluster.list_pods(namespace, name))
        if job_result is None:
            # The pod went before its result was read. The same request gives the same result.
            await hub.cluster.delete(JOB, namespace, name, job["metadata"]["uid"])
            return None
        confirmed = await confirm(hub.registry, job_result, request_of(job), signed.sha256)
        report = confirmed.report
        published = await publish_verdicts(
            hub.registry,
            hub.keys,
            contract,
            signed,
            report,
            site_lines=confirmed.site_lines,
            at=job_outcome.completed,
        )
        await self._show(observed, report, published.verdicts)
        for site in report.quarantined:
            await quarantine(
                hub.cluster, hub.settings.namespace, site, _why(observed, report, site, job_outcome.completed)
            )
        return AggregateStatus(
            report=job_result.report,
            adapter=report.adapter,
            lineage=published.lineage,
            reason=report.reason,
            message=report.message,
            verified=sum(judged.passed for judged in report.verdicts),
            rejected=report.rejected,
            quarantined=sorted(report.quarantined)[:20],
        )

    def _previous(self, contract: Contract) -> ArtifactRef | None:
        """Return the adapter that the parent was made from."""
        namespace, name = contract.round.namespace, contract.parent_release.name
        release = self._hub.cache.get(Release, namespace, name)
        return release.spec.parent if release is not None else None

    def _history(self, update: Update) -> list[str]:
        """Return the relative norms of the site's verified updates in the federation's earlier rounds, oldest first."""
        spec, created = update.spec, update.metadata.creation_timestamp
        past = [
            (other.metadata.creation_timestamp, other.metadata.name, other.status.verdict.measurements["relativeNorm"])
            for other in self._hub.cache.list(Update, update.metadata.namespace)
            if other.spec.federation == spec.federation
            and other.status.verdict is not None
            and other.status.verdict.reason == Reason.VERIFIED
            and "relativeNorm" in other.status.verdict.measurements
            and created is not None
            and other.metadata.creation_timestamp is not None
            and other.metadata.creation_timestamp < created
        ]
        return [norm for _, _, norm in sorted(past)[-_HISTORY:]]

    async def _show(self, observed: ObservedRound, report: AggregationReport, verdicts: dict[str, ArtifactRef]) -> None:
        updates = {slot.site: slot.update for slot in observed.slots}
        for judged in report.verdicts:
            update = updates.get(judged.site)
            if update is None:
                continue
            conditions = ConditionSet(
                (c for c in update.status.conditions if c.type in CONDITIONS),
                update.metadata.generation,
                self._hub.clock.now(),
            )
            message = f"{judged.message[:1000]}."
            conditions.set(ConditionType.VERIFIED, judged.passed, Reason(judged.reason), message)
            verdict = Verdict(
                reason=judged.reason,
                norm=judged.norm,
                measurements=judged.measurements,
                alerts=judged.alerts,
                statement=verdicts[judged.site],
            )
            status = UpdateStatus(conditions=conditions.list(), verdict=verdict)
            if await write_status(self._hub.cluster, update, status, VERDICT_FIELD_MANAGER, CONDITIONS):
                metrics.VERDICTS.labels(judged.reason).inc()
                for alert in judged.alerts:
                    metrics.ALERTS.labels(alert).inc()
                if judged.site in report.quarantined:
                    metrics.QUARANTINES.inc()


def _why(observed: ObservedRound, report: AggregationReport, site: str, at: datetime) -> str:
    judged = next(judged for judged in report.verdicts if judged.site == site)
    alerts = ", ".join(judged.alerts)
    return (
        f"Quarantined at {until(at)} in round {observed.round.metadata.name}, alerts {alerts}: {judged.message[:500]}."
    )


def _contract(observed: ObservedRound) -> Contract:
    if observed.contract is None:
        raise ValueError("aggregation needs a contract")
    return observed.contract
