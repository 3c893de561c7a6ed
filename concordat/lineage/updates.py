"""From the contract to the closure: what was offered, what each site sent, and what the hub held of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from concordat.lineage.bundle import Line, StatementKind
from concordat.lineage.check import demand, only, opened, reading
from concordat.lineage.errors import LineageError
from concordat.lineage.grants import CLOCKS, check_grant, open_update_grant
from concordat.lineage.site import check_consent, check_update, open_consent, open_update
from concordat.lineage.trust import Trust
from concordat.statements.closure import Closure, read_closure
from concordat.statements.contract import SignedContract, open_contract
from concordat.statements.grant import Grant, read_grant
from concordat.statements.names import ACCEPTED, update_resource
from concordat.statements.provenance import Provenance, read_update
from concordat.statements.summary import Summary, read_summary


@dataclass(frozen=True)
class Accepted:
    """What the hub accepted, by its own signed verdicts."""

    ids: Mapping[str, str]
    """Site to the id of its update statement."""
    rejected: tuple[str, ...]
    missing: tuple[str, ...]
    closure_id: str


def read_contract(line: Line, trust: Trust, contract_digest: str) -> SignedContract:
    """Return the contract, by signature and digest. Raises LineageError."""
    with reading("the contract"):
        return open_contract(line.data, trust.contract_keys, digest=contract_digest)


def accepted_updates(found: Mapping[StatementKind, list[Line]], trust: Trust, signed: SignedContract) -> Accepted:
    """Verdicts, closure, updates and consents. Raises LineageError."""
    verdicts = _verdicts(found[StatementKind.VERDICT], trust, signed)
    missing = tuple(sorted(set(signed.keys) - set(verdicts)))
    closure = _closure(only(found, StatementKind.CLOSURE), trust, signed, verdicts, missing)
    updates = _updates(found[StatementKind.UPDATE], signed, verdicts)
    consents = _consents(found[StatementKind.CONSENT], signed, updates)
    grants = _grants(found[StatementKind.GRANT], trust, updates, closure.closed)
    ids: dict[str, str] = {}
    for site, verdict in verdicts.items():
        if verdict.passed:
            ids[site] = _accepted(site, verdict, updates.get(site), consents, grants, signed)
    rejected = tuple(sorted(set(verdicts) - set(ids)))
    return Accepted(ids, rejected, missing, closure.id)


def _verdicts(lines: list[Line], trust: Trust, signed: SignedContract) -> dict[str, Summary]:
    verdicts: dict[str, Summary] = {}
    for line in lines:
        what = "a verdict"
        with reading(what):
            verdict = read_summary(opened(line, trust.aggregation_keys, what))
        site, what = verdict.site, f"the verdict on site {verdict.site[:80]!r}"
        demand(site in signed.keys, f"{what} is by site {site[:80]!r}, which is not in the contract")
        demand(site not in verdicts, f"there are two verdicts on site {site}")
        demand(verdict.policy == signed.digest, f"{what} was given under contract {verdict.policy}")
        resource = update_resource(signed.contract.round.uid, site)
        demand(verdict.resource == resource, f"{what} is about {verdict.resource}, expected {resource}")
        demand(len(verdict.inputs) <= 1, f"{what} rests on {len(verdict.inputs)} statements")
        if verdict.passed:
            demand(ACCEPTED in verdict.levels, f"{what} passed something else than an update")
            demand(len(verdict.inputs) == 1, f"{what} accepts an update without its statement")
        verdicts[site] = verdict
    return verdicts


def _closure(
    line: Line, trust: Trust, signed: SignedContract, verdicts: Mapping[str, Summary], missing: tuple[str, ...]
) -> Closure:
    what = "the closure"
    with reading(what):
        closure = read_closure(opened(line, trust.aggregation_keys, what))
    demand(closure.contract == signed.digest, f"{what} is of contract {closure.contract}")
    present = sorted(verdict.id for verdict in verdicts.values())
    demand(
        sorted(closure.verdicts) == present,
        f"{what} lists {len(closure.verdicts)} verdicts, and they are not exactly the {len(present)} in the bundle",
    )
    passed = sum(verdict.passed for verdict in verdicts.values())
    for name, said, counted in (
        ("accepted", closure.accepted, passed),
        ("rejected", closure.rejected, len(verdicts) - passed),
    ):
        demand(said == counted, f"{what} counts {said} {name}, its verdicts are {counted}")
    demand(closure.missing == missing, f"{what} does not name exactly the sites without a verdict as missing")
    return closure


def _updates(lines: list[Line], signed: SignedContract, verdicts: Mapping[str, Summary]) -> dict[str, Provenance]:
    """Each signed by its site, and the one its verdict is about."""
    updates: dict[str, Provenance] = {}
    for line in lines:
        with reading("an update"):
            site = str(read_update(line.content).parameters.get("site"))
        update, verdict = open_update(line.data, site, signed), verdicts.get(site)
        demand(
            verdict is not None and verdict.inputs == (update.id,),
            f"the update of site {site[:80]!r} is not the one its verdict is about",
        )
        updates[site] = update
    return updates


def _consents(lines: list[Line], signed: SignedContract, updates: Mapping[str, Provenance]) -> dict[str, Summary]:
    """By id; each signed by its site, and named by its update."""
    consents: dict[str, Summary] = {}
    for line in lines:
        with reading("a consent"):
            site = read_summary(line.content).site
        consent, update = open_consent(line.data, site, signed), updates.get(site)
        named = update.all("consent") if update is not None else ()
        demand(consent.id in named, f"the consent of site {site[:80]!r} is not the one its update was made with")
        consents[consent.id] = consent
    return consents


def _grants(lines: list[Line], trust: Trust, updates: Mapping[str, Provenance], closed: datetime) -> dict[str, Grant]:
    """By id; each signed by the gateway before the round closed, and named by the update of its site."""
    grants: dict[str, Grant] = {}
    for line in lines:
        with reading("a grant"):
            site = read_grant(line.content).site
        grant, update = open_update_grant(line.data, site, trust.gateway_keys), updates.get(site)
        named = update.all("grant") if update is not None else ()
        demand(grant.id in named, f"the grant of site {site[:80]!r} is not the one its update was sent with")
        demand(grant.not_before <= closed + CLOCKS, f"the grant of site {site} was given after the round was closed")
        grants[grant.id] = grant
    return grants


def _accepted(
    site: str,
    verdict: Summary,
    update: Provenance | None,
    consents: Mapping[str, Summary],
    grants: Mapping[str, Grant],
    signed: SignedContract,
) -> str:
    """Check that an accepted update was made under this contract, from its base and parent, with consent and grant."""
    what = f"the accepted update of site {site}"
    if update is None:
        raise LineageError(f"{what} is not in the bundle")
    demand(update.subject == verdict.subject, f"{what} is of {update.subject}, its verdict about {verdict.subject}")
    check_update(update, site, signed)
    consent = consents.get(update.one("consent"))
    if consent is None:
        raise LineageError(f"the consent of site {site} is not in the bundle")
    check_consent(consent, update, site, signed)
    grant = grants.get(update.one("grant"))
    if grant is None:
        raise LineageError(f"the grant of site {site} is not in the bundle")
    check_grant(grant, update, site, signed)
    return update.id
