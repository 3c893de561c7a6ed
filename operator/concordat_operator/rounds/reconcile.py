"""A FederationRound: observe, decide (`plan.round`), do one step, show it (`plan.describe`)."""

from __future__ import annotations

import logging
from dataclasses import replace

from concordat.api import FederationRound, Reason, Release, ReleaseChannel, Site, Update
from concordat.api.release import ReleaseSpec, release_name
from concordat.api.round_status import AggregateStatus, ContractStatus
from concordat.api.types import FINALIZER, LABEL_RELEASE, LABEL_ROUND_UID, LABEL_SITE, ObjectMeta
from concordat.api.update import UpdateSpec, update_name
from concordat.artifacts import PERMANENT_REGISTRY_ERRORS, RegistryUnavailable
from concordat.controller import (
    JOB,
    ApiError,
    Forbidden,
    Invalid,
    Key,
    Result,
    Terminal,
    Unavailable,
    fields,
    write_status,
)
from concordat.jobs import aggregation_job_name
from concordat_operator import metrics
from concordat_operator.create import create_once, labels, later, round_ref
from concordat_operator.hub import FIELD_MANAGER, Hub
from concordat_operator.rounds.aggregate import AggregationStep
from concordat_operator.rounds.cleanup import clean_up
from concordat_operator.rounds.contract import contract as make_contract
from concordat_operator.rounds.describe import describe, stalled
from concordat_operator.rounds.plan import REQUEUE_SECONDS, ObservedRound, Step, ended, next_step, over, wake
from concordat_operator.rounds.select import Finding, Selection, select
from concordat_operator.rounds.slots import slots
from concordat_operator.signing import publish_contract
from concordat_operator.sites.quarantine import quarantined

log = logging.getLogger(__name__)


class RoundReconciler:
    """Takes rounds from selection to release."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._aggregation = AggregationStep(hub)

    async def __call__(self, key: Key) -> Result:
        """Do the next step of one round. Raises Transient when the API server is out of reach."""
        hub = self._hub
        round_ = hub.cache.get(FederationRound, *key)
        if round_ is None or key[0] != hub.settings.namespace:
            return Result()
        if ended(round_):
            return Result()
        if next_step(ObservedRound(round_)) is Step.CLEAN_UP:
            return Result(await clean_up(hub, round_))
        signed, aggregate, problem = round_.status.contract, round_.status.aggregate, None
        try:
            observed = await self._observe(round_, signed, aggregate)
        except PERMANENT_REGISTRY_ERRORS as error:
            return await self._stall(round_, error)
        try:
            step = next_step(observed)
            if step is Step.FINALIZE:
                await hub.cluster.set_finalizers(
                    FederationRound, *key, [*round_.metadata.finalizers, FINALIZER], round_.metadata.resource_version
                )
                return Result()
            if step is Step.CONTRACT:
                signed = await self._contract(observed)
            elif step is Step.REQUEST and signed is not None:
                await self._request(observed, signed)
            elif step is Step.AGGREGATE and signed is not None:
                await self._aggregation.start(observed, signed)
            elif step is Step.JUDGE and signed is not None:
                aggregate = await self._aggregation.confirm(observed, signed) or aggregate
            elif step is Step.PROPOSE and signed is not None:
                await self._propose(observed, signed)
            observed = await self._observe(round_, signed, aggregate)
        except Terminal as error:
            problem = Finding(error.reason, error.message)
        except RegistryUnavailable as error:
            problem = Finding(Reason.REGISTRY_UNAVAILABLE, f"{error}; it is tried again.")
        except PERMANENT_REGISTRY_ERRORS as error:
            problem = Finding(Reason.ARTIFACT_UNREADABLE, f"{error}.")
        except (Forbidden, Invalid) as error:
            problem = Finding(Reason.INVALID, f"The API server refused the next step: {error}.")
        now = hub.clock.now()
        observed = replace(observed, problem=problem)
        written = await write_status(hub.cluster, round_, describe(observed, signed, now), FIELD_MANAGER)
        outcome = over(observed)
        if written and outcome is not None:
            metrics.ROUNDS.labels(outcome.reason.value).inc()
        return Result(wake(observed, now))

    async def _stall(self, round_: FederationRound, error: Exception) -> Result:
        """Show that the contract is lost; what the status says of the round otherwise is all that is left of it."""
        hub = self._hub
        lost = Finding(Reason.ARTIFACT_UNREADABLE, f"The round's contract is lost: {error}.")
        await write_status(hub.cluster, round_, stalled(round_, lost, hub.clock.now()), FIELD_MANAGER)
        return Result(REQUEUE_SECONDS)

    async def _observe(
        self, round_: FederationRound, signed: ContractStatus | None, aggregate: AggregateStatus | None
    ) -> ObservedRound:
        """Return all the cache knows that bears on the round."""
        hub, namespace = self._hub, round_.metadata.namespace
        if signed is None:
            return ObservedRound(round_, selection=await self._select(round_))
        contract = await hub.contract(signed.artifact)
        updates = hub.cache.list(Update, labels={LABEL_ROUND_UID: round_.metadata.uid})
        by_site = {u.spec.site: u for u in updates if u.metadata.namespace == u.spec.site}
        releases = hub.cache.list(Release, namespace, {LABEL_ROUND_UID: round_.metadata.uid})
        return ObservedRound(
            round_,
            contract=contract,
            slots=slots(contract, by_site, hub.clock.now()),
            job=hub.cache.get(JOB, namespace, aggregation_job_name(round_)),
            aggregate=aggregate,
            release=releases[0] if releases else None,
        )

    async def _select(self, round_: FederationRound) -> Selection | Finding:
        hub, namespace = self._hub, round_.metadata.namespace
        return select(
            round_,
            sites=hub.cache.list(Site),
            releases=hub.cache.list(Release, namespace),
            channels=hub.cache.list(ReleaseChannel, namespace),
            default_image=hub.settings.learning_image,
            quarantined=await quarantined(hub.cluster, namespace),
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
        contract = make_contract(observed.round, observed.selection, hub.settings.runtime_class, hub.clock.now())
        return await publish_contract(hub.registry, hub.keys, contract)

    async def _request(self, observed: ObservedRound, signed: ContractStatus) -> None:
        """Create the missing Updates. One site that cannot be asked must not keep the others from being asked."""
        contract = observed.contract
        if contract is None:
            raise ValueError("Updates need a contract")
        for slot in observed.slots:
            if slot.update is not None or slot.out is not None:
                continue
            spec = UpdateSpec(
                federation=contract.federation,
                round_ref=round_ref(observed.round),
                site=slot.site,
                contract=signed.artifact,
                contract_digest=signed.sha256,
                consent_deadline=contract.consent_deadline,
                submission_deadline=contract.submission_deadline,
            )
            name = update_name(observed.round.metadata.name, observed.round.metadata.uid)
            metadata = ObjectMeta(
                name=name, namespace=slot.site, labels={**labels(observed.round), LABEL_SITE: slot.site}
            )
            try:
                await create_once(self._hub.cluster, Update(metadata=metadata, spec=spec))
            except Unavailable:
                raise
            except ApiError as error:
                log.warning(
                    "site not asked", extra=fields(round=observed.round.metadata.name, site=slot.site, error=str(error))
                )

    async def _propose(self, observed: ObservedRound, signed: ContractStatus) -> None:
        """Create the candidate Release, with the next free sequence of its federation."""
        hub, contract, aggregate = self._hub, observed.contract, observed.aggregate
        if contract is None or aggregate is None or aggregate.adapter is None:
            raise ValueError("a candidate needs a contract and an adapter")
        namespace, seconds = observed.round.metadata.namespace, observed.round.spec.deadlines.evaluation_seconds
        name = release_name(observed.round.metadata.name, aggregate.adapter)
        async with hub.sequence_lock:
            taken = [
                r.spec.sequence for r in hub.cache.list(Release, namespace) if r.spec.federation == contract.federation
            ]
            spec = ReleaseSpec(
                federation=contract.federation,
                sequence=1 + max([contract.parent_release.sequence, *taken]),
                base=contract.base,
                adapter=aggregate.adapter,
                parent=contract.parent,
                round_ref=round_ref(observed.round),
                contract_digest=signed.sha256,
                lineage=aggregate.lineage,
                image=contract.image,
                confidence_ppm=contract.evaluation.confidence_ppm,
                deadline=later(hub.clock.now(), seconds),
            )
            metadata = ObjectMeta(
                name=name, namespace=namespace, labels={**labels(observed.round), LABEL_RELEASE: name}
            )
            await create_once(hub.cluster, Release(metadata=metadata, spec=spec))
