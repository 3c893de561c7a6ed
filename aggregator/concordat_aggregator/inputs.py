"""What the hub gives the Job: request, contract and parent, all checked before they are used."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pydantic import ValidationError

from concordat.api.types import ArtifactRef
from concordat.artifacts import RegistryStore
from concordat.lora import Adapter, LoraError, read_adapter
from concordat.protocol.aggregation import AggregationRequest
from concordat.protocol.artifact_types import (
    ADAPTER_CONFIG_FILE,
    ADAPTER_FILE,
)
from concordat.protocol.contract import Contract
from concordat.protocol.document import DocumentError
from concordat.statements import PublicKey, StatementError
from concordat.statements.contract import SignedContract, open_contract
from concordat.tensors import FLOATS, TensorError, Tensors, read_tensors

MAX_ADAPTER = 1 << 30


class RequestError(Exception):
    """The request, the contract or the parent cannot be used: the hub made a mistake, no site did."""


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


async def load_request(store: RegistryStore, ref: ArtifactRef) -> AggregationRequest:
    """Return the request. Raises RequestError, ArtifactError."""
    try:
        request = AggregationRequest.from_bytes(
            await store.read(ref, AggregationRequest.FILE, AggregationRequest.LIMIT)
        )
    except DocumentError as error:
        raise RequestError(str(error)) from error
    names = [submission.site for submission in request.submissions]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise RequestError(f"{request.FILE}: submissions names a site twice: {', '.join(twice)}")
    return request


async def load_contract(store: RegistryStore, request: AggregationRequest) -> SignedContract:
    """Return the contract, verified by signature and digest. Raises RequestError, ArtifactError."""
    document = await store.read(request.contract, Contract.FILE, Contract.LIMIT)
    statement = await store.read(request.contract, Contract.STATEMENT_FILE, Contract.LIMIT)
    try:
        hub_key = PublicKey.from_pem(request.contract_key)
        signed = open_contract(statement, [hub_key], digest=request.contract_digest, document=document)
    except StatementError as error:
        raise RequestError(f"the contract cannot be trusted: {error}") from error
    foreign = sorted({submission.site for submission in request.submissions} - set(signed.keys))
    if foreign:
        names = ", ".join(foreign)
        raise RequestError(f"{request.FILE}: submissions names sites that are not in the contract: {names}")
    return signed


def load_gateway_keys(request: AggregationRequest) -> list[PublicKey]:
    """Return the keys that grants are verified by. Raises RequestError."""
    try:
        return [PublicKey.from_pem(pem) for pem in request.gateway_keys]
    except StatementError as error:
        raise RequestError(f"{request.FILE}: gatewayKeys: {error}") from error


async def load_parent(store: RegistryStore, contract: Contract) -> Parent:
    """Return the parent adapter. Raises RequestError, ArtifactError."""
    data = await store.read(contract.parent, ADAPTER_FILE, MAX_ADAPTER)
    config = await store.read(contract.parent, ADAPTER_CONFIG_FILE)
    try:
        tensors = read_tensors(data, MAX_ADAPTER, FLOATS)
    except TensorError as error:
        raise RequestError(f"parent {contract.parent.digest}: {ADAPTER_FILE}: {error}") from error
    if not all(np.isfinite(tensor).all() for tensor in tensors.values()):
        raise RequestError(f"parent {contract.parent.digest}: {ADAPTER_FILE} has a value that is not finite")
    try:
        return Parent(tensors, config, read_adapter(tensors, config))
    except LoraError as error:
        raise RequestError(f"parent {contract.parent.digest}: {error}") from error


def check_finite(candidate: Tensors) -> None:
    """Raises RequestError unless every value of the candidate is finite."""
    if not all(np.isfinite(tensor).all() for tensor in candidate.values()):
        raise RequestError("parent and aggregate add up to a value that is not finite: the parent is too large")


async def load_ancestors(store: RegistryStore, request: AggregationRequest) -> list[Tensors]:
    """Return the adapters that the parent was made from, newest first. Raises RequestError, ArtifactError."""
    ancestors: list[Tensors] = []
    for ref in request.ancestors:
        try:
            ancestors.append(read_tensors(await store.read(ref, ADAPTER_FILE, MAX_ADAPTER), MAX_ADAPTER, FLOATS))
        except TensorError as error:
            raise RequestError(f"ancestor {ref.digest}: {ADAPTER_FILE}: {error}") from error
    return ancestors


def parse_ref(text: str) -> ArtifactRef:
    """`<repository>@<digest>`. Raises RequestError."""
    repository, _, digest = text.partition("@")
    try:
        return ArtifactRef(repository=repository, digest=digest)
    except ValidationError as error:
        raise RequestError(f"{text!r} is not <repository>@sha256:<64 hex digits>") from error
