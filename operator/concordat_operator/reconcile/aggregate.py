"""Steps 7 and 8 of a round: the aggregator Job, and what the operator makes of its report."""

from __future__ import annotations

from concordat.api import ConditionSet, Reason, Update
from concordat.api.contract import Contract
from concordat.api.round import AggregateStatus, ContractStatus
from concordat.api.types import ArtifactRef
from concordat.api.update import UpdateStatus, Verdict
from concordat.artifacts.types import AGGREGATION_REQUEST, REQUEST_FILE
from concordat.jobs import aggregation_job, outcome
from concordat.runtime import JOB, write_status
from concordat.statements import canonical
from concordat_operator import metrics
from concordat_operator.context import VERDICT_MANAGER, Hub
from concordat_operator.plan.round import Observed
from concordat_operator.reconcile.objects import create_job
from concordat_operator.records import publish_judgement, rounds
from concordat_operator.report import Report, confirm, request_of, result

REQUEST_SCHEMA = "concordat.dev/aggregation-request/v1"
CONDITIONS = ("Verified",)


class Aggregation:
    """Starts the aggregator, confirms what it found, and signs it."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    async def start(self, seen: Observed, signed: ContractStatus) -> None:
        """Push the request and create the Job. The Job fixes what was asked: a later submission is not in it."""
        hub, contract = self._hub, _contract(seen)
        request = {
            "schema": REQUEST_SCHEMA,
            "contract": signed.artifact.wire(),
            "contractDigest": signed.sha256,
            "contractKey": hub.keys.contract.public.to_pem(),
            "submissions": [
                {"site": slot.site, "artifact": sent.artifact.wire(), "statement": sent.statement.wire()}
                for slot in seen.slots
                if slot.submitted and slot.update is not None and (sent := slot.update.status.submission) is not None
            ],
        }
        files = {REQUEST_FILE: canonical(request)}
        ref = await hub.registry.push(rounds(contract), AGGREGATION_REQUEST, files)
        job = aggregation_job(
            seen.round, request=ref, image=hub.settings.operator_image, registry_url=hub.settings.registry_url
        )
        await create_job(hub.cluster, job)

    async def judge(self, seen: Observed, signed: ContractStatus) -> AggregateStatus | None:
        """Confirm the report, sign it, show the verdicts. None: the Job has to run again, its result is gone.

        Raises Terminal if the report is not what was asked for, RegistryUnavailable.
        """
        hub, contract, job = self._hub, _contract(seen), seen.job
        ended = outcome(job)
        if job is None or ended is None or ended.completed is None:
            raise ValueError("the aggregator has not ended")
        space, name = job["metadata"]["namespace"], job["metadata"]["name"]
        found = result(await hub.cluster.list_pods(space, name))
        if found is None:
            # The pod went before its result was read. The same request gives the same result.
            await hub.cluster.delete(JOB, space, name, job["metadata"]["uid"])
            return None
        report = await confirm(hub.registry, found, request_of(job), signed.sha256)
        judgement = await publish_judgement(
            hub.registry, hub.keys, contract, signed, report, consents=_consents(seen, report), at=ended.completed
        )
        await self._show(seen, report, judgement.verdicts)
        return AggregateStatus(report=found.report, adapter=report.adapter, lineage=judgement.lineage)

    async def _show(self, seen: Observed, report: Report, verdicts: dict[str, ArtifactRef]) -> None:
        updates = {slot.site: slot.update for slot in seen.slots}
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
            conditions.set("Verified", judged.passed, Reason(judged.reason), message)
            verdict = Verdict(reason=judged.reason, norm=judged.norm, statement=verdicts[judged.site])
            status = UpdateStatus(conditions=conditions.list(), verdict=verdict)
            if await write_status(self._hub.cluster, update, status, VERDICT_MANAGER, CONDITIONS):
                metrics.VERDICTS.labels(judged.reason).inc()


def _contract(seen: Observed) -> Contract:
    if seen.contract is None:
        raise ValueError("aggregation needs a contract")
    return seen.contract


def _consents(seen: Observed, report: Report) -> list[ArtifactRef]:
    """The consents of the sites whose updates were accepted."""
    accepted = {judged.site for judged in report.verdicts if judged.passed}
    updates: list[Update] = [s.update for s in seen.slots if s.site in accepted and s.update is not None]
    return [update.status.consent.statement for update in updates if update.status.consent is not None]
