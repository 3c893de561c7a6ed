"""The hub gets new keys, and no site misses a release (security finding F14)."""

from __future__ import annotations

import base64
from typing import Any

from concordat.controller import CONFIGMAP, SECRET
from concordat.lineage import Trust
from concordat.protocol.locations import TRUST_CONFIGMAP, TRUST_FILE
from concordat.statements import SigningKey
from concordat_operator.keys import SECRET_NAME
from tests.scenarios.federation import Federation
from tests.support.presence import condition


async def published(federation: Federation) -> Trust:
    """What the hub tells the sites to trust."""
    found = await federation.admin.get(CONFIGMAP, federation.hub_space, TRUST_CONFIGMAP)
    return Trust.from_json(found["data"][TRUST_FILE])


async def store(federation: Federation, **pems: bytes) -> dict[str, str]:
    """Set entries of the Secret with the hub's keys, as an administrator does; returns all that are there now."""
    secret = await federation.admin.get(SECRET, federation.hub_space, SECRET_NAME)
    data = {f"{name.replace('_', '-')}.pem": base64.b64encode(pem).decode() for name, pem in pems.items()}
    stored: dict[str, Any] = await federation.admin.replace({**secret, "data": {**secret["data"], **data}})
    return dict(stored["data"])


async def released(federation: Federation, name: str) -> None:
    """Run a round, which every site adopts the release of."""
    await federation.round(name)
    await federation.settle()
    ended = condition(federation.found(name).status.conditions, "Succeeded")
    assert (ended.status.value, ended.reason) == ("True", "Released")
    for short in ("site-a", "site-b", "site-c", "site-d"):
        assert await federation.champion(short) == federation.released(name)


async def test_the_hubs_keys_are_replaced_while_both_are_trusted(federation: Federation) -> None:
    contract, aggregation = SigningKey.generate(), SigningKey.generate()
    before = await published(federation)
    old = await store(federation, contract_next=contract.to_pem(), aggregation_next=aggregation.to_pem())
    await federation.start_operator()
    await federation.settle()
    both = await published(federation)
    assert both.contract_keys == (*before.contract_keys, contract.public)
    assert both.aggregation_keys == (*before.aggregation_keys, aggregation.public)
    federation.repin(both)
    await released(federation, "r1")
    await store(
        federation,
        contract=contract.to_pem(),
        aggregation=aggregation.to_pem(),
        contract_next=base64.b64decode(old["contract.pem"]),
        aggregation_next=base64.b64decode(old["aggregation.pem"]),
    )
    await federation.start_operator()
    await released(federation, "r2")
    after = await published(federation)
    assert after.contract_keys == (contract.public, *before.contract_keys)
