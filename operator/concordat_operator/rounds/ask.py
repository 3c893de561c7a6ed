"""Step 3: ask the sites, and give them more time. One that cannot be asked keeps nobody waiting."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from concordat.api import FederationRound, Update
from concordat.api.round_status import ContractStatus, ExtensionStatus
from concordat.api.types import LABEL_SITE, ObjectMeta
from concordat.api.update import UpdateSpec, UpdateStatus, update_name
from concordat.controller import fields, gather_bounded, write_status
from concordat.protocol.contract import Contract
from concordat_operator.create import create_once, labels, round_ref
from concordat_operator.hub import EXTENSION_FIELD_MANAGER, Hub
from concordat_operator.rounds.contract import later_deadlines
from concordat_operator.rounds.plan import ObservedRound, collected, over
from concordat_operator.signing import publish_extension

log = logging.getLogger(__name__)


class AskStep:
    """Creates the Updates of a round, and shows later deadlines on them."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._unasked: dict[str, dict[str, str]] = {}

    def unasked(self, round_: FederationRound) -> Mapping[str, str]:
        """Return the sites that could not be asked at the last try, each with the API server's answer."""
        return self._unasked.get(round_.metadata.uid, {})

    async def ask(self, observed: ObservedRound, signed: ContractStatus) -> None:
        """Create the missing Updates. Raises Transient, after all were tried, if the API server is out of reach."""
        contract = observed.agreed

        async def create(site: str) -> None:
            await create_once(self._hub.cluster, _update(observed.round, contract, signed, site))

        missing = [slot.site for slot in observed.slots if slot.update is None and slot.out is None]
        refused = {site: str(error) for site, error in await gather_bounded(missing, create)}
        self._remember(observed.round, refused)

    async def extend(self, observed: ObservedRound, signed: ContractStatus) -> ExtensionStatus | None:
        """Sign the later deadlines that the spec asks for, and show them to every site that may still answer."""
        hub, contract, extension = self._hub, observed.contract, observed.extension
        if contract is None or collected(observed) or over(observed) is not None:
            return extension
        later = later_deadlines(observed.round, contract)
        if later is not None:
            extension = await publish_extension(hub.registry, hub.keys, contract, signed.sha256, *later)

        async def show(update: Update) -> None:
            await write_status(hub.cluster, update, UpdateStatus(extension=extension), EXTENSION_FIELD_MANAGER, ())

        open_ = [slot.update for slot in observed.slots if slot.update is not None and slot.out is None]
        for update, error in await gather_bounded([u for u in open_ if u.status.extension != extension], show):
            log.warning("deadline not shown", extra=fields(site=update.spec.site, error=str(error)))
        return extension

    def _remember(self, round_: FederationRound, refused: dict[str, str]) -> None:
        """Keep why sites could not be asked, for the status; each pass tries again until the consent deadline."""
        before = self.unasked(round_)
        for site, why in refused.items():
            if before.get(site) != why:
                log.warning("site not asked", extra=fields(round=round_.metadata.name, site=site, error=why))
        self._unasked.pop(round_.metadata.uid, None)
        if refused:
            self._unasked[round_.metadata.uid] = refused


def _update(round_: FederationRound, contract: Contract, signed: ContractStatus, site: str) -> Update:
    name = update_name(round_.metadata.name, round_.metadata.uid)
    spec = UpdateSpec(
        federation=contract.federation,
        round_ref=round_ref(round_),
        site=site,
        contract=signed.artifact,
        contract_digest=signed.sha256,
        consent_deadline=contract.consent_deadline,
        submission_deadline=contract.submission_deadline,
    )
    return Update(
        metadata=ObjectMeta(name=name, namespace=site, labels={**labels(round_), LABEL_SITE: site}), spec=spec
    )
