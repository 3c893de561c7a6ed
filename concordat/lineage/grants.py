"""The grant that an update was sent with: whether the hub's gateway gave it, for this update and no other."""

from __future__ import annotations

from collections.abc import Collection
from datetime import timedelta

from concordat.api.conditions import Reason
from concordat.lineage.check import demand_of_site, reading_of_site
from concordat.statements import PublicKey
from concordat.statements.contract import SignedContract
from concordat.statements.grant import Grant, Purpose, open_grant
from concordat.statements.provenance import Provenance

CLOCKS = timedelta(minutes=5)
"""By how much the clocks of a hub's machines may differ."""


def open_update_grant(line: bytes, site: str, gateway_keys: Collection[PublicKey]) -> Grant:
    """Return the grant in a line, signed by the gateway. Raises SiteRefused."""
    with reading_of_site(f"the grant of site {site[:80]!r}", Reason.GRANT_INVALID):
        return open_grant(line, gateway_keys)


def check_grant(grant: Grant, update: Provenance, site: str, signed: SignedContract) -> None:
    """Check that the grant is to send this very update, to this site with its key, under this contract.

    Raises SiteRefused.
    """
    contract, key = signed.contract, signed.keys[site]
    missing = sorted(contract.attestation.least_tier.required - grant.found.keys())
    for holds, otherwise in (
        (update.all("grant") == (grant.id,), "is not the one its update was sent with"),
        (grant.purpose is Purpose.SEND, f"is to {grant.purpose}, not to send an update"),
        (grant.contract == signed.digest, f"is under contract {grant.contract}, expected {signed.digest}"),
        (grant.round_uid == contract.round.uid, f"is of round {grant.round_uid!r}, expected {contract.round.uid!r}"),
        (grant.site == site, f"is for site {grant.site[:80]!r}"),
        (grant.key == key.thumbprint, f"is for key {grant.key}, the contract names {key.thumbprint}"),
        (grant.update == update.subject, f"is to send {grant.update}, the update is {update.subject}"),
        (grant.not_before >= contract.opens - CLOCKS, "was given before the round"),
        (not missing, f"rests on too little: the contract demands {', '.join(missing)} as well"),
    ):
        demand_of_site(holds, Reason.GRANT_INVALID, f"the grant of site {site} {otherwise}")
