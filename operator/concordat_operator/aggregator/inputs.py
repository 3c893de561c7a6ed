"""What the hub gives the Job: request, contract and parent, all checked before they are used."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, ValidationError

from concordat.api.contract import Contract
from concordat.api.types import ArtifactRef, Decimal6, Model, Name, PublicKeyPem, Sha256
from concordat.artifacts import RegistryStore
from concordat.artifacts.tensors import FLOATS, TensorError, Tensors, read_tensors
from concordat.artifacts.types import (
    ADAPTER_CONFIG_FILE,
    ADAPTER_FILE,
    CONTRACT_FILE,
    CONTRACT_STATEMENT_FILE,
    REQUEST_FILE,
)
from concordat.lora import Adapter, LoraError, read_adapter
from concordat.statements import PublicKey, StatementError, canonical, open_bundle, sha256_digest
from concordat.statements.readers import read_contract

MAX_ADAPTER = 1 << 30
MAX_STATEMENT = 64 << 10
"""Of a site. All accepted ones together are a round's lineage, which no site may make too large to be read."""
MAX_CONTRACT = 1 << 20


class Invalid(Exception):
    """The request, the contract or the parent cannot be used: the hub made a mistake, no site did."""


class Submission(Model):
    """Where a site's update is."""

    site: Name
    artifact: ArtifactRef
    statement: ArtifactRef


class Request(Model):
    """What to aggregate."""

    schema_: Annotated[Literal["concordat.dev/aggregation-request/v1"], Field(alias="schema")]
    contract: ArtifactRef
    contract_digest: Sha256
    contract_key: PublicKeyPem
    submissions: Annotated[list[Submission], Field(max_length=1000)]
    previous: ArtifactRef | None = None
    """The parent's own parent; with it, an update that only repeats the last aggregate is recognized."""
    history: dict[Name, list[Decimal6]] = Field(default_factory=dict)
    """By site: the relative norms of its updates in earlier rounds, oldest first."""


@dataclass(frozen=True)
class Offer:
    """A verified contract: its digest and the key of each of its sites."""

    contract: Contract
    digest: str
    keys: dict[str, PublicKey]

    def slot(self, site: str) -> str:
        """The repository that belongs to a site in this round."""
        return f"{self.contract.federation}/rounds/{self.contract.round.uid}/{site}"


@dataclass(frozen=True)
class Parent:
    """The adapter the round started from."""

    tensors: Tensors
    config: bytes
    adapter: Adapter
    """The same, module by module."""

    @property
    def size(self) -> int:
        """Bytes of its values as float32: no update can hold more."""
        return sum(tensor.nbytes for tensor in self.tensors.values())


async def load_request(store: RegistryStore, ref: ArtifactRef) -> Request:
    """The request. Raises Invalid, ArtifactError."""
    data = await store.read(ref, REQUEST_FILE)
    try:
        request = Request.model_validate(json.loads(data))
    except (ValueError, RecursionError) as error:
        raise Invalid(f"{REQUEST_FILE} is not valid: {error}") from error
    names = [submission.site for submission in request.submissions]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise Invalid(f"{REQUEST_FILE}: submissions names a site twice: {', '.join(twice)}")
    return request


async def load_offer(store: RegistryStore, request: Request) -> Offer:
    """The contract, verified by signature and digest. Raises Invalid, ArtifactError."""
    data = await store.read(request.contract, CONTRACT_FILE, MAX_CONTRACT)
    bundle = await store.read(request.contract, CONTRACT_STATEMENT_FILE, MAX_CONTRACT)
    if sha256_digest(data) != request.contract_digest:
        raise Invalid(f"{CONTRACT_FILE} hashes to {sha256_digest(data)}; contractDigest is {request.contract_digest}")
    try:
        signed = open_bundle(bundle, [PublicKey.from_pem(request.contract_key)])
        statement = read_contract(signed)
        if statement.digest != request.contract_digest or canonical(signed.statement["predicate"]) != data:
            raise Invalid(f"the signed statement is about another contract, {statement.digest}")
        keys = {site.name: PublicKey.from_pem(site.public_key) for site in statement.contract.sites}
    except StatementError as error:
        raise Invalid(f"the contract cannot be trusted: {error}") from error
    _check_sites(statement.contract, keys)
    foreign = sorted({submission.site for submission in request.submissions} - set(keys))
    if foreign:
        raise Invalid(f"{REQUEST_FILE}: submissions names sites that are not in the contract: {', '.join(foreign)}")
    return Offer(statement.contract, request.contract_digest, keys)


async def load_parent(store: RegistryStore, contract: Contract) -> Parent:
    """The parent adapter. Raises Invalid, ArtifactError."""
    data = await store.read(contract.parent, ADAPTER_FILE, MAX_ADAPTER)
    config = await store.read(contract.parent, ADAPTER_CONFIG_FILE)
    try:
        tensors = read_tensors(data, MAX_ADAPTER, FLOATS)
    except TensorError as error:
        raise Invalid(f"parent {contract.parent.digest}: {ADAPTER_FILE}: {error}") from error
    if not all(np.isfinite(tensor).all() for tensor in tensors.values()):
        raise Invalid(f"parent {contract.parent.digest}: {ADAPTER_FILE} has a value that is not finite")
    try:
        return Parent(tensors, config, read_adapter(tensors, json.loads(config)))
    except (ValueError, LoraError) as error:
        raise Invalid(f"parent {contract.parent.digest}: {error}") from error


async def load_previous(store: RegistryStore, request: Request) -> Tensors | None:
    """The parent's own parent, if the request names it. Raises Invalid, ArtifactError."""
    if request.previous is None:
        return None
    try:
        return read_tensors(await store.read(request.previous, ADAPTER_FILE, MAX_ADAPTER), MAX_ADAPTER, FLOATS)
    except TensorError as error:
        raise Invalid(f"previous {request.previous.digest}: {ADAPTER_FILE}: {error}") from error


def parse_ref(text: str) -> ArtifactRef:
    """`<repository>@<digest>`. Raises Invalid."""
    repository, _, digest = text.partition("@")
    try:
        return ArtifactRef(repository=repository, digest=digest)
    except ValidationError as error:
        raise Invalid(f"{text!r} is not <repository>@sha256:<64 hex digits>") from error


def _check_sites(contract: Contract, keys: dict[str, PublicKey]) -> None:
    if len(keys) != len(contract.sites) or len(set(keys.values())) != len(contract.sites):
        raise Invalid("the contract has a site or a key twice; one key must not count as two sites")
    for site in contract.sites:
        if keys[site.name].thumbprint != site.key_thumbprint:
            raise Invalid(f"the contract's keyThumbprint of {site.name} is not that of its publicKey")
