"""The aggregator Job: one process per round, without keys and without rights in the cluster.

The same request gives the same report and the same adapter, byte for byte, however often it runs.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from concordat.aggregation import AggregationError, aggregate, apply_delta
from concordat.api.conditions import Reason
from concordat.api.types import ArtifactRef
from concordat.artifacts import ArtifactError, RegistryStore, RegistryUnavailable
from concordat.artifacts.tensors import Tensors, write_tensors
from concordat.artifacts.types import (
    ADAPTER,
    ADAPTER_CONFIG_FILE,
    ADAPTER_FILE,
    AGGREGATION_REPORT,
    REPORT_FILE,
)
from concordat.screening import decimal, total_norm
from concordat.statements import canonical, sha256_digest
from concordat_operator.aggregator.inputs import (
    Invalid,
    Offer,
    Parent,
    load_offer,
    load_parent,
    load_request,
    parse_ref,
)
from concordat_operator.aggregator.judge import Judge, Verdict, reject_duplicates

EXIT_INVALID = 65
EXIT_BUG = 70
EXIT_TRANSIENT = 75
REPORT_SCHEMA = "concordat.dev/aggregation-report/v1"

_LOG = logging.getLogger(__name__)


async def run(store: RegistryStore, request_ref: ArtifactRef) -> dict[str, Any]:
    """Judge, aggregate and push; returns the references of report and adapter (None without one).

    Raises Invalid, or ArtifactError for what the hub itself should have provided, RegistryUnavailable among them.
    """
    request = await load_request(store, request_ref)
    offer = await load_offer(store, request)
    parent = await load_parent(store, offer.contract)
    judge = Judge(store, offer, parent)
    verdicts = reject_duplicates([await judge.judge(submission) for submission in request.submissions])
    for verdict in verdicts:
        _LOG.info("%s: %s: %s", verdict.submission.site, verdict.reason.value, verdict.message)

    outcome = _combine(offer, verdicts)
    report: dict[str, Any] = {
        "schema": REPORT_SCHEMA,
        "contractDigest": offer.digest,
        "verdicts": [verdict.wire() for verdict in verdicts],
        "rule": offer.contract.aggregation.rule.value,
        "aggregated": [],
        "aggregateNorm": None,
        "adapter": None,
        "adapterSha256": None,
    }
    if isinstance(outcome, _NoAggregate):
        report |= {"reason": outcome.reason.value, "message": outcome.message}
        _LOG.info("no candidate: %s: %s", outcome.reason.value, outcome.message)
    else:
        data = write_tensors(_candidate(parent, outcome))
        files = {ADAPTER_FILE: data, ADAPTER_CONFIG_FILE: parent.config}
        adapter = await store.push(f"{offer.contract.federation}/adapters", ADAPTER, files)
        sites = [verdict.submission.site for verdict in verdicts if verdict.passed]
        report |= {
            "reason": Reason.AGGREGATED.value,
            "message": f"{len(sites)} updates",
            "aggregated": sites,
            "aggregateNorm": decimal(total_norm(outcome)),
            "adapter": adapter.wire(),
            "adapterSha256": sha256_digest(data),
        }
        _LOG.info("candidate %s@%s from %s", adapter.repository, adapter.digest, ", ".join(sites))
    round_repository = f"{offer.contract.federation}/rounds/{offer.contract.round.uid}"
    pushed = await store.push(round_repository, AGGREGATION_REPORT, {REPORT_FILE: canonical(report)})
    return {"report": pushed.wire(), "adapter": report["adapter"]}


class _NoAggregate:
    def __init__(self, reason: Reason, message: str) -> None:
        self.reason = reason
        self.message = message


def _combine(offer: Offer, verdicts: Sequence[Verdict]) -> Tensors | _NoAggregate:
    contract = offer.contract
    deltas = [verdict.delta for verdict in verdicts if verdict.delta is not None]
    if len(deltas) < contract.quorum:
        return _NoAggregate(
            Reason.QUORUM_NOT_REACHED, f"{len(deltas)} updates were verified; quorum is {contract.quorum}"
        )
    try:
        return aggregate(deltas, contract.aggregation.rule, contract.aggregation.max_faulty_sites)
    except AggregationError as error:
        return _NoAggregate(Reason.TOO_MANY_FAULTS, str(error))


def _candidate(parent: Parent, delta: Tensors) -> Tensors:
    candidate = apply_delta(parent.tensors, delta)
    if not all(np.isfinite(tensor).all() for tensor in candidate.values()):
        raise Invalid("parent and aggregate add up to a value that is not finite: the parent's values are too large")
    return candidate


async def _main(registry: str, request: str, result: Path) -> None:
    async with RegistryStore(registry) as store:
        outcome = await run(store, parse_ref(request))
    result.write_text(json.dumps(outcome, sort_keys=True, separators=(",", ":")) + "\n", encoding="utf-8")


def main(argv: Sequence[str]) -> int:
    """Run the Job: 0 done (also without a candidate), 65 invalid input, 70 bug, 75 the registry is unavailable."""
    parser = argparse.ArgumentParser(prog="python -m concordat_operator.aggregator", description=__doc__)
    parser.add_argument("--registry", required=True, help="URL of the artifact registry")
    parser.add_argument("--request", required=True, help="<repository>@<digest> of the aggregation request")
    parser.add_argument("--result", required=True, type=Path, help="file that receives the references as one JSON line")
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    try:
        asyncio.run(_main(arguments.registry, arguments.request, arguments.result))
    except RegistryUnavailable as error:
        _LOG.error("%s", error)
        return EXIT_TRANSIENT
    except (Invalid, ArtifactError) as error:
        _LOG.error("%s", error)
        return EXIT_INVALID
    except Exception:
        _LOG.exception("a bug in the aggregator")
        return EXIT_BUG
    return 0
