"""Steps 5 to 9 of screening: the updates that passed by themselves, against each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from concordat.aggregation import Gram
from concordat.protocol.contract import Contract
from concordat.screening import CHARGED, Candidate, Functional, FunctionalCheck, numbers_wire, screen
from concordat.tensors import Tensors
from concordat_aggregator import functional
from concordat_aggregator.method import Method
from concordat_aggregator.verify import UpdateVerdict

_SPECTRUM = 10


@dataclass(frozen=True)
class RoundScreening:
    """The verdicts on a round's updates, after they were compared with each other."""

    verdicts: list[UpdateVerdict]
    sites: list[str]
    """Those that passed by themselves, in the order of `products`."""
    products: Gram
    rejected: int
    """Charged to the fault budget."""
    remaining_faults: int
    held: bool
    suspected: tuple[str, ...]
    spectrum: list[float]
    """The largest shares of the updates' energy around their mean, by principal component."""


def screen_round(
    contract: Contract,
    verdicts: Sequence[UpdateVerdict],
    method: Method,
    ancestors: Sequence[Tensors],
    checked: Mapping[str, Functional] | None,
) -> RoundScreening:
    """Screen the round. `checked` is what the functional check found of each update that passed by itself."""
    entered = [verdict for verdict in verdicts if verdict.passed]
    sites = [verdict.site for verdict in entered]
    products, repeated = method.compare(sites, ancestors)
    canary = contract.screening.canary
    norms = products.norms
    screened = screen(
        [Candidate(v.site, float(norm), v.arrived) for v, norm in zip(entered, norms, strict=True)],
        products.inner,
        products.distances2,
        max_faulty=contract.aggregation.max_faulty_sites,
        charged_before=sum(verdict.reason in CHARGED for verdict in verdicts),
        previous=repeated,
        functional=None if canary is None or checked is None else FunctionalCheck(checked, functional.limits(canary)),
    )
    found = {finding.site: finding for finding in screened.findings}
    screened_verdicts: list[UpdateVerdict] = []
    for verdict in verdicts:
        finding = found.get(verdict.site)
        if finding is not None:
            verdict = replace(
                verdict,
                reason=finding.reason,
                message=finding.message,
                measurements=numbers_wire(finding.numbers),
                alerts=tuple(alert.value for alert in finding.alerts),
            )
        screened_verdicts.append(verdict)
    return RoundScreening(
        verdicts=screened_verdicts,
        sites=sites,
        products=products,
        rejected=screened.rejected,
        remaining_faults=screened.remaining_faults,
        held=screened.held,
        suspected=screened.suspected,
        spectrum=_spectrum(products, [i for i, site in enumerate(sites) if found[site].reason == "Verified"]),
    )


def _spectrum(products: Gram, kept: Sequence[int]) -> list[float]:
    """Return the spectrum of the accepted updates, centred."""
    if len(kept) < 2:
        return []
    inner = products.select(kept).inner
    centred = inner - inner.mean(axis=0) - inner.mean(axis=1)[:, None] + inner.mean()
    energies = np.clip(np.linalg.eigvalsh(centred)[::-1], 0, None)
    total = float(energies.sum())
    return [float(energy) / total for energy in energies[:_SPECTRUM]] if total > 0 else []
