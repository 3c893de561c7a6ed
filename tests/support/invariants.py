"""What holds of a federation whatever failed, was killed or came twice; empty lists mean that it does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from concordat.api import ConditionType, FederationRound, Release, Site, Update, find, is_true
from concordat.artifacts import RegistryStore
from concordat.lineage import LineageError, Trust, verify_release
from concordat.protocol.aggregation import AggregationReport
from concordat.protocol.artifact_types import LINEAGE_FILE, MAX_LINEAGE, STATEMENT_FILE
from concordat.statements import open_bundle
from concordat.statements.summary import read_summary


@dataclass(frozen=True)
class World:
    """All objects of a hub and its sites."""

    hub: str
    rounds: Sequence[FederationRound]
    updates: Sequence[Update]
    releases: Sequence[Release]
    sites: Sequence[Site]

    @property
    def released(self) -> list[Release]:
        """Return the hub's approved releases that rounds made."""
        return [r for r in self.candidates if is_true(r.status.conditions, ConditionType.APPROVED)]

    @property
    def candidates(self) -> list[Release]:
        """Return the hub's releases that rounds made."""
        return [r for r in self.releases if r.metadata.namespace == self.hub and r.spec.round_ref is not None]


async def broken(world: World, registry: RegistryStore, trust: Trust) -> list[str]:
    """Return what does not hold, one sentence each."""
    return [
        *_sequences(world),
        *_orphans(world),
        *_champions(world),
        *[why for release in world.released for why in await _unproved(release, registry, trust)],
        *[why for round_ in world.rounds for why in await _misreported(world, round_, registry, trust)],
    ]


def _sequences(world: World) -> list[str]:
    taken = Counter((r.spec.federation, r.spec.sequence) for r in world.candidates)
    return [f"sequence {number} of {name} is taken {n} times" for (name, number), n in taken.items() if n > 1]


def _orphans(world: World) -> list[str]:
    rounds = {r.metadata.uid for r in world.rounds}
    names = {r.metadata.name for r in world.releases if r.metadata.namespace == world.hub}
    updates = [f"Update {u.key} is of no round" for u in world.updates if u.spec.round_ref.uid not in rounds]
    copies = [r for r in world.releases if r.metadata.namespace != world.hub and r.metadata.name not in names]
    return updates + [f"Release {copy.key} is a copy of nothing" for copy in copies]


def _champions(world: World) -> list[str]:
    good = {r.metadata.name for r in world.released}
    used = [(s.metadata.name, s.status.champion.release) for s in world.sites if s.status.champion is not None]
    return [f"{site} uses {release}, which is not approved" for site, release in used if release not in good]


async def _unproved(release: Release, registry: RegistryStore, trust: Trust) -> list[str]:
    name, spec, lineage = release.metadata.name, release.spec, release.status.lineage
    if lineage is None:
        return [f"{name} is approved without a lineage"]
    try:
        verify_release(
            await registry.read(lineage, LINEAGE_FILE, MAX_LINEAGE),
            trust,
            adapter=spec.adapter.digest,
            contract_digest=spec.contract_digest or "",
            sequence=spec.sequence,
        )
    except LineageError as error:
        return [f"the lineage of {name} does not hold: {error}"]
    return []


async def _misreported(world: World, round_: FederationRound, registry: RegistryStore, trust: Trust) -> list[str]:
    """The status agrees with the aggregator's report, and the verdicts shown with those signed."""
    name, aggregate = round_.metadata.name, round_.status.aggregate
    if aggregate is None:
        return []
    report = AggregationReport.from_bytes(
        await registry.read(aggregate.report, AggregationReport.FILE, AggregationReport.LIMIT)
    )
    accepted = {v.site for v in report.verdicts if v.passed}
    wrong = []
    if aggregate.verified != len(accepted):
        wrong.append(f"round {name} shows {aggregate.verified} verified, its report {len(accepted)}")
    if report.adapter is not None and set(report.aggregated) != accepted:
        wrong.append(f"round {name} aggregated {report.aggregated}, accepted were {sorted(accepted)}")
    for update in world.updates:
        verdict, shown = update.status.verdict, find(update.status.conditions, ConditionType.VERIFIED)
        if update.spec.round_ref.uid != round_.metadata.uid or verdict is None or verdict.statement is None:
            continue
        signed = read_summary(
            open_bundle(await registry.read(verdict.statement, STATEMENT_FILE), trust.aggregation_keys)
        )
        if shown is None or signed.passed is not shown.is_true or signed.site != update.spec.site:
            wrong.append(f"the verdict shown on {update.key} is not the signed one")
    return wrong
