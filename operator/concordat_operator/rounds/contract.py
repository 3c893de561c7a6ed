"""Step 2: the contract, made of the round's spec and the selection."""

from __future__ import annotations

from datetime import datetime, timedelta

from concordat.api import FederationRound, Release
from concordat.api.round import Factor, LoraMode
from concordat.api.round_status import ExtensionStatus
from concordat.protocol.contract import Contract, ContractRecipe, ContractRound, ContractSite, ParentRelease
from concordat_operator.rounds.select import Selection


def contract(round_: FederationRound, selection: Selection, runtime_class: str | None, now: datetime) -> Contract:
    """Return the contract; deadlines count from `now`, to the second."""
    spec, opens = round_.spec, now.replace(microsecond=0)
    factor = spec.recipe.train_factor or _factor(spec.aggregation.lora, selection.parent)
    return Contract(
        federation=spec.federation,
        round=ContractRound(
            name=round_.metadata.name,
            namespace=round_.metadata.namespace,
            uid=round_.metadata.uid,
            generation=round_.metadata.generation,
        ),
        base=selection.parent.spec.base,
        parent=selection.parent.spec.adapter,
        parent_release=ParentRelease(name=selection.parent.metadata.name, sequence=selection.parent.spec.sequence),
        sites=[
            ContractSite(name=member.name, key_thumbprint=member.key.thumbprint, public_key=member.key.public_key)
            for member in selection.members
        ],
        quorum=spec.quorum,
        budget=spec.budget,
        recipe=ContractRecipe(**dict(spec.recipe) | {"train_factor": factor, "image": selection.image}),
        gates=spec.gates,
        attestation=spec.attestation,
        screening=spec.screening,
        aggregation=spec.aggregation,
        evaluation=spec.evaluation,
        runtime_class_name=runtime_class,
        opens=opens,
        consent_deadline=opens + timedelta(seconds=spec.deadlines.consent_seconds),
        submission_deadline=opens + timedelta(seconds=spec.deadlines.submission_seconds),
    )


def _factor(mode: LoraMode, parent: Release) -> Factor:
    """Return the factor to train where the round leaves it open."""
    if mode is LoraMode.SVD:
        return Factor.BOTH
    trained_before = parent.spec.trained_factor
    return Factor.A if mode is LoraMode.ALTERNATING and trained_before is Factor.B else Factor.B


def extended(contract: Contract, extension: ExtensionStatus | None) -> Contract:
    """Return the contract with the deadlines that hold now."""
    if extension is None:
        return contract
    later = {
        "consent_deadline": extension.consent_deadline,
        "submission_deadline": extension.submission_deadline,
    }
    return contract.model_copy(update=later)


def later_deadlines(round_: FederationRound, contract: Contract) -> tuple[datetime, datetime] | None:
    """Return the deadlines of consent and submission that spec.extendDeadlines asks for; None: those that hold now.

    `contract` has the deadlines that hold now; none is ever put back.
    """
    wanted = round_.spec.extend_deadlines
    if wanted is None:
        return None
    consent = max(contract.consent_deadline, contract.opens + timedelta(seconds=wanted.consent_seconds or 0))
    submission = max(contract.submission_deadline, contract.opens + timedelta(seconds=wanted.submission_seconds or 0))
    found = (min(consent, submission), submission)
    return None if found == (contract.consent_deadline, contract.submission_deadline) else found
