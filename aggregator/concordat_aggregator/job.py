"""The aggregator Job: verify every update, screen them against each other, combine, push candidate and report.

A pure function of the request and the artifacts it names: no key, no call to the Kubernetes API. The same request
makes the same report and the same adapter, byte for byte, however often it runs.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import Any

from concordat.aggregation import AggregationError
from concordat.api.aggregation_rules import most_faulty
from concordat.api.conditions import Reason
from concordat.api.types import ArtifactRef
from concordat.artifacts import Access, ArtifactError, RegistryStore, RegistryUnavailable
from concordat.lineage import bundle
from concordat.lora import LoraError
from concordat.protocol.aggregation import AggregationReport, AggregationResult
from concordat.protocol.artifact_types import (
    ADAPTER,
    ADAPTER_CONFIG_FILE,
    ADAPTER_FILE,
    AGGREGATION_REPORT,
    REPORT_PICTURE_FILE,
    SITE_STATEMENTS_FILE,
)
from concordat.protocol.locations import adapters_repository, round_repository
from concordat.report.round_svg import draw
from concordat.screening import decimal
from concordat.statements.contract import SignedContract
from concordat.tensors import write_tensors
from concordat_aggregator import functional
from concordat_aggregator.both_factors import method_of
from concordat_aggregator.inputs import (
    RequestError,
    check_finite,
    load_ancestors,
    load_contract,
    load_gateway_keys,
    load_parent,
    load_request,
    parse_ref,
)
from concordat_aggregator.method import Combined, Method
from concordat_aggregator.remembering import RememberingMethod
from concordat_aggregator.screen_round import RoundScreening, screen_round
from concordat_aggregator.verify import Verifier, reject_copies

EXIT_INVALID = 65
EXIT_BUG = 70
EXIT_TRANSIENT = 75

_LOG = logging.getLogger(__name__)


class Until(Enum):
    """How far the program goes; the check of the learning image lies between two of these."""

    UPDATES = "updates"
    """Lay out the updates for the functional check."""
    CANDIDATE = "candidate"
    """Lay out the candidate for it."""
    END = "end"
    """Push candidate and report."""


async def run(
    store: RegistryStore, request_ref: ArtifactRef, work: Path, until: Until = Until.END, *, checked: Path | None = None
) -> AggregationResult | None:
    """Verify, aggregate and push; return the references of report and adapter, and None before the END.

    `checked` is where the functional check leaves what it found; it is needed with a canary, but for the UPDATES.
    Every run begins at the start, and finds on the disk what an earlier one measured and combined. Raises RequestError,
    or ArtifactError for what the hub itself should have provided, RegistryUnavailable among them.
    """
    request = await load_request(store, request_ref)
    signed = await load_contract(store, request)
    parent = await load_parent(store, signed.contract)
    method = method_of(signed.contract, parent, work)
    canary = signed.contract.screening.canary
    if canary is not None:
        method = RememberingMethod(method, work / "made" / request_ref.digest.removeprefix("sha256:"))
    verifier = Verifier(store, signed, load_gateway_keys(request), parent, method, work)
    verdicts = reject_copies(await verifier.verify_all(request.submissions))
    if until is Until.UPDATES:
        await functional.prepare(store, signed.contract, parent, verdicts, work)
        return None
    found = None
    if canary is not None:
        if checked is None:
            raise RequestError("the contract has a canary, but --checked is not given")
        found = functional.read(checked / functional.UPDATES)
        verdicts = functional.without_result(verdicts, found)
    screening = screen_round(signed.contract, verdicts, method, await load_ancestors(store, request), found)
    faults = _faults(signed, screening)
    outcome = _combine(signed, screening, method, faults)
    if until is Until.CANDIDATE:
        functional.prepare_gate(parent, outcome if isinstance(outcome, Combined) else None, work)
        return None
    if isinstance(outcome, Combined) and canary is not None and checked is not None:
        why = functional.refusal(checked, canary)
        outcome = outcome if why is None else _NoAggregate(Reason.TRIGGER_RESPONSE, why)
    for verdict in screening.verdicts:
        _LOG.info("%s: %s: %s", verdict.site, verdict.reason.value, verdict.message)
    policy = signed.contract.aggregation
    if isinstance(outcome, _NoAggregate):
        ended: dict[str, Any] = {"reason": outcome.reason.value, "message": outcome.message, "aggregated": []}
    else:
        ended = await _push_candidate(store, signed, parent.config, screening, outcome, faults)
    report = AggregationReport(
        contract_digest=signed.digest,
        verdicts=[verdict.reported() for verdict in screening.verdicts],
        rule=policy.rule,
        pre_aggregation=policy.pre_aggregation,
        lora=policy.lora,
        max_faulty_sites=policy.max_faulty_sites,
        rejected=screening.rejected,
        remaining_faults=faults,
        suspected=list(screening.suspected),
        spectrum=[f"{share:.6f}" for share in screening.spectrum],
        **ended,
    )
    _LOG.info("%s: %s", report.reason, report.message)
    files = {report.FILE: report.to_bytes(), REPORT_PICTURE_FILE: draw(report, signed.contract)}
    if report.adapter is not None:
        # Kept with the report: whatever becomes of a site's own artifacts, the lineage can be made.
        lines = [line for verdict in screening.verdicts if verdict.passed for line in verdict.lines]
        files[SITE_STATEMENTS_FILE] = bundle(lines)
    repository = round_repository(signed.contract.federation, signed.contract.round.uid)
    return AggregationResult(report=await store.push(repository, AGGREGATION_REPORT, files), adapter=report.adapter)


class _NoAggregate:
    def __init__(self, reason: Reason, message: str) -> None:
        self.reason = reason
        self.message = message


def _counted(signed: SignedContract, screening: RoundScreening) -> list[str]:
    """Return the sites whose updates are combined."""
    reference = signed.contract.aggregation.reference_site
    return [verdict.site for verdict in screening.verdicts if verdict.passed and verdict.site != reference]


def _faults(signed: SignedContract, screening: RoundScreening) -> int:
    """Return how many faulty updates the rule is to withstand among those that are left.

    Where more was rejected than was declared, the declaration was wrong: as many of it as the updates allow, not none,
    which would be the mean.
    """
    policy = signed.contract.aggregation
    if not screening.held:
        return screening.remaining_faults
    left = len(_counted(signed, screening))
    return most_faulty(policy.rule, policy.max_faulty_sites, left)


def _combine(signed: SignedContract, screening: RoundScreening, method: Method, faults: int) -> Combined | _NoAggregate:
    contract = signed.contract
    reference = contract.aggregation.reference_site
    accepted = [verdict.site for verdict in screening.verdicts if verdict.passed]
    sites = _counted(signed, screening)
    if len(sites) < contract.quorum:
        verified = f"{len(sites)} update{'' if len(sites) == 1 else 's'}"
        return _NoAggregate(Reason.QUORUM_NOT_REACHED, f"{verified} verified, quorum is {contract.quorum}")
    if reference is not None and reference not in accepted:
        return _NoAggregate(Reason.REFERENCE_MISSING, f"there is no verified update of referenceSite {reference}")
    positions = [screening.sites.index(site) for site in sites]
    try:
        combined = method.combine(sites, faults, screening.products.select(positions), reference=reference)
    except AggregationError as error:
        return _NoAggregate(Reason.TOO_MANY_FAULTS, str(error))
    except LoraError as error:
        return _NoAggregate(Reason.LORA_ERROR_ABOVE_LIMIT, str(error))
    check_finite(combined.candidate)
    return combined


async def _push_candidate(
    store: RegistryStore,
    signed: SignedContract,
    config: bytes,
    screening: RoundScreening,
    combined: Combined,
    faults: int,
) -> dict[str, Any]:
    data = write_tensors(combined.candidate)
    files = {ADAPTER_FILE: data, ADAPTER_CONFIG_FILE: config}
    adapter = await store.push(adapters_repository(signed.contract.federation), ADAPTER, files)
    sites = [verdict.site for verdict in screening.verdicts if verdict.passed]
    reason, message = Reason.AGGREGATED, f"{len(sites)} updates"
    if screening.held:
        reason = Reason.HELD_FOR_APPROVAL
        limit = signed.contract.aggregation.max_faulty_sites
        message = (
            f"{screening.rejected} updates were rejected, aggregation.maxFaultySites is {limit}. The candidate is "
            f"made to withstand {faults} among the {len(sites)} that are left."
        )
    return {
        "reason": reason.value,
        "message": message,
        "aggregated": sites,
        "weights": None if combined.weights is None else [f"{weight:.6f}" for weight in combined.weights],
        "aggregate_norm": decimal(combined.norm),
        "lora_error": f"{combined.error:.6f}",
        "adapter": adapter,
    }


async def _main(arguments: argparse.Namespace) -> None:
    result: Path | None = arguments.result
    async with RegistryStore(arguments.registry, access=Access.of_pod(arguments.ca)) as store:
        until = Until(arguments.until or "end")
        outcome = await run(store, parse_ref(arguments.request), arguments.work, until, checked=arguments.checked)
    if result is not None and outcome is not None:
        result.write_text(outcome.model_dump_json(exclude_none=True) + "\n", encoding="utf-8")


def main(argv: Sequence[str]) -> int:
    """Run the Job: 0 done (also without a candidate), 65 invalid input, 70 bug, 75 the registry is unavailable."""
    parser = argparse.ArgumentParser(prog="python -m concordat_aggregator", description=__doc__)
    parser.add_argument("--registry", required=True, help="URL of the artifact registry")
    parser.add_argument("--ca", help="PEM certificates by which the registry is known, instead of the system's")
    parser.add_argument("--request", required=True, help="<repository>@<digest> of the aggregation request")
    parser.add_argument("--work", required=True, type=Path, help="folder for the updates and what is made of them")
    parser.add_argument("--checked", type=Path, help="folder of what the functional check found")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--result", type=Path, help="file that receives the references as one JSON line")
    what.add_argument(
        "--until", choices=["updates", "candidate"], help="stop where these are laid out for the functional check"
    )
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    try:
        asyncio.run(_main(arguments))
    except RegistryUnavailable as error:
        _LOG.error("%s", error)
        return EXIT_TRANSIENT
    except (RequestError, ArtifactError) as error:
        _LOG.error("%s", error)
        return EXIT_INVALID
    except Exception:
        _LOG.exception("a bug in the aggregator")
        return EXIT_BUG
    return 0
