"""Statements of one site, its update and its consent, checked against the contract; grants.py has its grant.

The aggregator admits an update by these functions and a lineage is verified by them, so that nothing is aggregated
that a reader of the lineage refuses afterwards.
"""

from __future__ import annotations

from concordat.api.conditions import Reason
from concordat.lineage.check import demand_of_site, reading_of_site
from concordat.lineage.errors import SiteRefused
from concordat.statements import PublicKey, SignatureInvalid, StatementError, one_line, open_bundle
from concordat.statements.contract import SignedContract
from concordat.statements.names import CONSENTED, agent_id, round_resource
from concordat.statements.provenance import Provenance, read_update
from concordat.statements.summary import Summary, read_summary

_ROLES = frozenset({"base", "parent", "contract", "consent", "grant"})


def line_of(statement: bytes, reason: Reason) -> bytes:
    """Return a site's statement as the line that it becomes in a bundle. Raises SiteRefused with that reason."""
    with reading_of_site("the statement", reason):
        return one_line(statement)


def open_update(line: bytes, site: str, signed: SignedContract) -> Provenance:
    """Return the update in a line, signed by the site's key. Raises SiteRefused."""
    what = f"the update of site {site[:80]!r}"
    key = _key(signed, site, what)
    try:
        return read_update(open_bundle(line, [key]))
    except SignatureInvalid as error:
        raise SiteRefused(Reason.SIGNATURE_INVALID, f"{what}: {error}") from None
    except StatementError as error:
        raise SiteRefused(Reason.STATEMENT_INVALID, f"{what}: {error}") from None


def open_consent(line: bytes, site: str, signed: SignedContract) -> Summary:
    """Return the consent in a line, signed by the site's key. Raises SiteRefused."""
    what = f"the consent of site {site[:80]!r}"
    key = _key(signed, site, what)
    with reading_of_site(what, Reason.CONSENT_INVALID):
        return read_summary(open_bundle(line, [key]))


def check_update(update: Provenance, site: str, signed: SignedContract) -> None:
    """Check that the update is by this site, of this round, under this contract, from its base and parent.

    Raises SiteRefused.
    """
    what, contract, stated = f"the update of site {site}", signed.contract, update.parameters
    named, round_uid = stated.get("site"), stated.get("round")
    demand_of_site(named == site, Reason.STATEMENT_INVALID, f"{what} names site {named!r}")
    demand_of_site(
        update.builder == agent_id(site),
        Reason.STATEMENT_INVALID,
        f"{what} was made by {update.builder}, expected {agent_id(site)}",
    )
    demand_of_site(isinstance(round_uid, str), Reason.STATEMENT_INVALID, f"{what} names no round")
    demand_of_site(
        round_uid == contract.round.uid,
        Reason.REPLAYED,
        f"{what} was made for round {round_uid!r}, expected {contract.round.uid!r}",
    )
    demand_of_site(
        update.roles <= _ROLES,
        Reason.STATEMENT_INVALID,
        f"{what} has dependencies of unknown roles: {', '.join(sorted(update.roles))}",
    )
    with reading_of_site(what, Reason.STATEMENT_INVALID):
        made_from = {role: update.one(role) for role in sorted(_ROLES)}
    demand_of_site(
        stated.get("contract") == signed.digest,
        Reason.CONTRACT_MISMATCH,
        f"{what} was made for contract {stated.get('contract')!r}, expected {signed.digest!r}",
    )
    for role, expected, reason in (
        ("contract", signed.digest, Reason.CONTRACT_MISMATCH),
        ("base", contract.base.digest, Reason.PARENT_MISMATCH),
        ("parent", contract.parent.digest, Reason.PARENT_MISMATCH),
    ):
        found = made_from[role]
        demand_of_site(found == expected, reason, f"{what} was made from {role} {found}, expected {expected}")


def check_consent(consent: Summary, update: Provenance, site: str, signed: SignedContract) -> None:
    """Check that the consent is this site's yes to this contract, and the one its update was made with.

    Raises SiteRefused.
    """
    what, resource = f"the consent of site {site}", round_resource(signed.contract.round.uid)
    for holds, otherwise in (
        (consent.site == site, f"names site {consent.site[:80]!r}"),
        (consent.verifier == agent_id(site), f"is by {consent.verifier}, expected {agent_id(site)}"),
        (consent.subject == signed.digest, f"is to {consent.subject}, the contract is {signed.digest}"),
        (consent.resource == resource, f"is about {consent.resource}, expected {resource}"),
        (consent.passed and CONSENTED in consent.levels, f"says no: {consent.reason}"),
        (update.all("consent") == (consent.id,), "is not the one its update was made with"),
    ):
        demand_of_site(holds, Reason.CONSENT_INVALID, f"{what} {otherwise}")


def _key(signed: SignedContract, site: str, what: str) -> PublicKey:
    key = signed.keys.get(site)
    if key is None:
        raise SiteRefused(Reason.STATEMENT_INVALID, f"{what} is by site {site[:80]!r}, which is not in the contract")
    return key
