"""A FederationRound: observe, decide (`plan.round`), do one step, show it (`plan.describe`)."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace

from concordat.api import FederationRound, Reason, Release, ReleaseChannel, Site, Update
from concordat.api.release import ReleaseSpec, release_name
from concordat.api.round_status import AggregateStatus, AggregationStatus, ContractStatus, ExtensionStatus
from concordat.api.types import FINALIZER, LABEL_RELEASE, LABEL_ROUND_UID, ObjectMeta
from concordat.artifacts import PERMANENT_REGISTRY_ERRORS, RegistryUnavailable
from concordat.controller import (
    JOB,
    Forbidden,
    Invalid,
    Key,
    Result,
    Terminal,
    write_status,
)
from concordat.jobs import aggregation_job_name, outcome
from concordat.protocol.aggregation import AggregationReport, AggregationRequest
from concordat_operator import metrics
from concordat_operator.child_jobs import not_running
from concordat_operator.create import create_once, labels, later, round_ref
from concordat_operator.finding import Finding
from concordat_operator.history.sequences import highest_deleted
from concordat_operator.hub import FIELD_MANAGER, Hub
from concordat_operator.keys import keep
from concordat_operator.releases.plan import superseding
from concordat_operator.rounds.aggregate import AggregationStep
from concordat_operator.rounds.ask import AskStep
from concordat_operator.rounds.cleanup import clean_up
from concordat_operator.rounds.contract import contract as make_contract
from concordat_operator.rounds.contract import extended
from concordat_operator.rounds.describe import describe, settled, stalled
from concordat_operator.rounds.plan import (
    REQUEUE_SECONDS,
    ObservedRound,
    Step,
    expires,
    next_step,
    over,
    wake,
)
from concordat_operator.rounds.select import Selection, select
from concordat_operator.rounds.slots import slots
from concordat_operator.signing import publish_contract
from concordat_operator.sites.quarantine import quarantined

log = logging.getLogger(__name__)


class RoundReconciler:
    """Takes rounds from selection to release."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._aggregation = AggregationStep(hub)
        self._asking = AskStep(hub)

    async def __call__(self, key: Key) -> Result:
        """Do the next step of one round. Raises Transient when the API server is out of reach."""
        hub = self._hub
        round_ = hub.cache.get(FederationRound, *key)
        if round_ is None or key[0] != hub.settings.namespace:
            return Result()
        if next_step(ObservedRound(round_)) is Step.CLEAN_UP:
            return Result(await clean_up(hub, round_))
        if round_.ended:
            await write_status(hub.cluster, round_, settled(round_, hub.clock.now()), FIELD_MANAGER)
            return Result()
        if round_.status.contract is not None:
            return await self._pass(round_)
        async with hub.opening:
            # What the round before it in this lock has written is in the cache, and decides whether this one may open.
            fresh = hub.cache.get(FederationRound, *key)
            return await self._pass(fresh) if fresh is not None else Result()

    async def _pass(self, round_: FederationRound) -> Result:
        hub = self._hub
        signed, aggregate, problem = round_.status.contract, round_.status.aggregate, None
        extension, aggregation = round_.status.extension, round_.status.aggregation
        waits: Finding | None = None
        try:
            observed = await self._observe(round_, signed, extension, aggregation, aggregate)
        except (RegistryUnavailable, *PERMANENT_REGISTRY_ERRORS) as error:
            return await self._stall(round_, error)
        try:
            step = next_step(observed)
            if step is Step.FINALIZE:
                await hub.cluster.set_finalizers(
                    FederationRound,
                    *round_.key,
                    [*round_.metadata.finalizers, FINALIZER],
                    round_.metadata.resource_version,
                )
                return Result()
            if step is Step.CONTRACT:
                signed = await self._contract(observed)
            elif step is Step.REQUEST and signed is not None:
                await self._asking.ask(observed, signed)
            elif step is Step.AGGREGATE and signed is not None:
                aggregation = await self._aggregation.ask(observed, signed)
            elif step is Step.LAUNCH:
                waits = await self._aggregation.launch(observed)
            elif step is Step.RESTART:
                aggregation, waits = await self._aggregation.restart(observed)
            elif step is Step.JUDGE and signed is not None:
                aggregate = await self._aggregation.confirm(observed, signed)
                if aggregate is None:
                    aggregation, waits = await self._aggregation.restart(observed)
            elif step is Step.PROPOSE and signed is not None:
                await self._propose(observed, signed)
            if signed is not None:
                extension = await self._asking.extend(observed, signed)
            if step is not Step.REST or extension != round_.status.extension:
                observed = await self._observe(round_, signed, extension, aggregation, aggregate)
            if waits is None and observed.job is not None and outcome(observed.job) is None:
                waits = await not_running(hub, observed.job)
        except Terminal as error:
            problem = Finding(error.reason, error.message)
        except RegistryUnavailable as error:
            problem = _unavailable(error)
        except PERMANENT_REGISTRY_ERRORS as error:
            problem = Finding(Reason.ARTIFACT_UNREADABLE, f"{error}.")
        except (Forbidden, Invalid) as error:
            problem = Finding(Reason.INVALID, f"The API server refused the next step: {error}.")
        now = hub.clock.now()
        observed = replace(observed, problem=problem, waits=waits)
        # What cannot be taken back is not written onto a round that was edited since it was looked at.
        before = round_.status
        irreversible = (signed, aggregation, aggregate) != (before.contract, before.aggregation, before.aggregate)
        status = await asyncio.to_thread(describe, observed, signed, now)
        written = await write_status(hub.cluster, round_, status, FIELD_MANAGER, unchanged=irreversible)
        conclusion = over(observed)
        if written and conclusion is not None:
            metrics.ROUNDS.labels(conclusion.reason).inc()
        return Result(wake(observed, now))

    async def _stall(self, round_: FederationRound, error: Exception) -> Result:
        """Show that the contract cannot be read; what the status says of the round otherwise is all that is known."""
        hub, now, signed = self._hub, self._hub.clock.now(), round_.status.contract
        if isinstance(error, RegistryUnavailable):
            why, over = _unavailable(error), False
        else:
            why = Finding(Reason.ARTIFACT_UNREADABLE, f"The round's contract is lost: {error}.")
            over = signed is not None and now >= expires(round_.spec, signed.contracted_time)
        await write_status(hub.cluster, round_, stalled(round_, why, now, over=over), FIELD_MANAGER)
        return Result(REQUEUE_SECONDS)

    async def _observe(
        self,
        round_: FederationRound,
        signed: ContractStatus | None,
        extension: ExtensionStatus | None,
        aggregation: AggregationStatus | None,
        aggregate: AggregateStatus | None,
    ) -> ObservedRound:
        """Return all the cache knows that bears on the round."""
        hub, namespace = self._hub, round_.metadata.namespace
        if signed is None:
            return ObservedRound(round_, selection=await self._select(round_))
        contract = extended(await hub.contract(signed.artifact), extension)
        updates = hub.cache.list(Update, labels={LABEL_ROUND_UID: round_.metadata.uid})
        by_site = {u.spec.site: u for u in updates if u.metadata.namespace == u.spec.site}
        releases: list[Release] = []
        others: list[Release] = []
        for release in hub.cache.list(Release, namespace):
            mine = release.metadata.labels.get(LABEL_ROUND_UID) == round_.metadata.uid
            (releases if mine else others).append(release)
        now, job, retry_at = hub.clock.now(), None, None
        if aggregation is not None:
            job = hub.cache.get(JOB, namespace, aggregation_job_name(round_, aggregation.run))
            retry_at = aggregation.retry_time
        over_at = expires(round_.spec, contract.opens)
        return ObservedRound(
            round_,
            contract=contract,
            extension=extension,
            # Of a thousand sites it takes a tenth of a second, in which the event loop has other things to do.
            slots=await asyncio.to_thread(
                slots,
                contract,
                by_site,
                now,
                judged=await self._judged(aggregation, aggregate),
                unasked=dict(self._asking.unasked(round_)),
            ),
            aggregation=aggregation,
            retry_at=retry_at if retry_at is not None and retry_at > now else None,
            job=job,
            aggregate=aggregate,
            release=releases[0] if releases else None,
            newer=superseding(others, contract.federation, contract.parent_release.sequence, contract.opens),
            expired=over_at if now >= over_at else None,
        )

    async def _judged(
        self, aggregation: AggregationStatus | None, aggregate: AggregateStatus | None
    ) -> set[str] | None:
        """Return the sites whose updates the aggregator was given; None before that was fixed."""
        if aggregation is None:
            return None
        if aggregate is not None:
            report = await self._hub.document(aggregate.report, AggregationReport)
            return {verdict.site for verdict in report.verdicts}
        request = await self._hub.document(aggregation.request, AggregationRequest)
        return {submission.site for submission in request.submissions}

    async def _select(self, round_: FederationRound) -> Selection | Finding:
        hub, namespace, sites = self._hub, round_.metadata.namespace, self._hub.cache.list(Site)
        return select(
            round_,
            sites=sites,
            members=hub.members.present(sites, hub.clock.now()),
            releases=hub.cache.list(Release, namespace),
            channels=hub.cache.list(ReleaseChannel, namespace),
            rounds=hub.cache.list(FederationRound, namespace),
            default_image=hub.settings.learning_image,
            quarantined=await quarantined(hub.cluster, namespace, hub.clock.now()),
        )

    async def _contract(self, observed: ObservedRound) -> ContractStatus:
        hub = self._hub
        if not isinstance(observed.selection, Selection):
            raise ValueError("a contract needs a selection")
        parent = observed.selection.parent
        try:
            for ref in (parent.spec.base, parent.spec.adapter):
                await hub.registry.files(ref)
        except PERMANENT_REGISTRY_ERRORS as error:
            raise Terminal(
                Reason.PARENT_NOT_FOUND,
                f"Release {parent.metadata.name!r} names an artifact that is not there: {error}.",
            ) from None
        await keep(hub.cluster, hub.settings.namespace, hub.keys)
        contract = make_contract(observed.round, observed.selection, hub.settings.runtime_class, hub.clock.now())
        return await publish_contract(hub.registry, hub.keys, contract)

    async def _propose(self, observed: ObservedRound, signed: ContractStatus) -> None:
        """Create the candidate Release, with the next free sequence of its federation."""
        hub, contract, aggregate = self._hub, observed.contract, observed.aggregate
        if contract is None or aggregate is None or aggregate.adapter is None:
            raise ValueError("a candidate needs a contract and an adapter")
        namespace, seconds = observed.round.metadata.namespace, observed.round.spec.deadlines.evaluation_seconds
        name = release_name(observed.round.metadata.name, observed.round.metadata.uid, aggregate.adapter)
        async with hub.opening:
            taken = [
                r.spec.sequence for r in hub.cache.list(Release, namespace) if r.spec.federation == contract.federation
            ]
            taken.append(await highest_deleted(hub.cluster, namespace, contract.federation))
            spec = ReleaseSpec(
                federation=contract.federation,
                sequence=1 + max([contract.parent_release.sequence, *taken]),
                base=contract.base,
                adapter=aggregate.adapter,
                parent=contract.parent,
                round_ref=round_ref(observed.round),
                contract_digest=signed.sha256,
                trained_factor=contract.recipe.train_factor,
                lineage=aggregate.lineage,
                runtime_class_name=contract.runtime_class_name,
                confidence_ppm=contract.evaluation.confidence_ppm,
                deadline=later(hub.clock.now(), seconds),
            )
            metadata = ObjectMeta(
                name=name, namespace=namespace, labels={**labels(observed.round), LABEL_RELEASE: name}
            )
            await create_once(hub.cluster, Release(metadata=metadata, spec=spec))


def _unavailable(error: RegistryUnavailable) -> Finding:
    return Finding(Reason.REGISTRY_UNAVAILABLE, f"{error}; it is tried again.")
