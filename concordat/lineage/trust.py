"""The keys a party trusts, by role. A site pins them in its own Helm release; the hub cannot change them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from pydantic import BeforeValidator, ConfigDict, Field, ValidationError

from concordat.api.membership import MAX_KEYS
from concordat.api.types import Model, Name, PublicKeyPem
from concordat.lineage.errors import LineageError
from concordat.statements import PublicKey, StatementError

MAX_EVALUATORS = 16

_Keys = Annotated[
    list[PublicKeyPem],
    BeforeValidator(lambda given: [given] if isinstance(given, str) else given),
    Field(min_length=1, max_length=MAX_KEYS),
]
"""A key, or a list of them."""


class _File(Model):
    """trust.json: PEM public keys."""

    model_config = ConfigDict(extra="forbid")

    contract_keys: Annotated[list[PublicKeyPem], Field(min_length=1, max_length=8)]
    aggregation_keys: Annotated[list[PublicKeyPem], Field(min_length=1, max_length=8)]
    gateway_keys: Annotated[list[PublicKeyPem], Field(min_length=1, max_length=8)]
    evaluators: Annotated[dict[Name, _Keys], Field(max_length=MAX_EVALUATORS)]
    gateway_ca: Annotated[str, Field(min_length=1, max_length=65536)] | None = None


@dataclass(frozen=True)
class Trust:
    """Whose signature is accepted for what."""

    contract_keys: tuple[PublicKey, ...]
    """Of the hub, for contracts and releases: what it asks and offers."""
    aggregation_keys: tuple[PublicKey, ...]
    """Of the hub, for verdicts, closures and aggregations: what it found."""
    gateway_keys: tuple[PublicKey, ...]
    """Of the hub's gateway, for grants: what it found of a site. With none, no update counts."""
    evaluators: Mapping[str, tuple[PublicKey, ...]]
    """Keys of the independent evaluators, by the name of their Site; several while one takes another's place."""
    gateway_ca: str | None = None
    """PEM certificates by which the hub's gateway is known; None: those that the system trusts."""

    @classmethod
    def from_json(cls, text: str) -> Trust:
        """Read trust.json. Raises LineageError, naming the field and what to do."""
        try:
            file = _File.model_validate_json(text)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in first["loc"]) or "the file"
            raise LineageError(
                f"trust.json: {where}: {first['msg']}; take it from the hub's ConfigMap concordat-trust"
            ) from None
        trust = cls(
            contract_keys=tuple(_key(f"contractKeys.{i}", pem) for i, pem in enumerate(file.contract_keys)),
            aggregation_keys=tuple(_key(f"aggregationKeys.{i}", pem) for i, pem in enumerate(file.aggregation_keys)),
            gateway_keys=tuple(_key(f"gatewayKeys.{i}", pem) for i, pem in enumerate(file.gateway_keys)),
            evaluators={name: _several(f"evaluators.{name}", pems) for name, pems in file.evaluators.items()},
            gateway_ca=file.gateway_ca,
        )
        trust._demand_one_role_each()
        return trust

    def to_json(self) -> str:
        """trust.json; the same keys give the same text."""
        file = _File(
            contract_keys=[key.to_pem() for key in self.contract_keys],
            aggregation_keys=[key.to_pem() for key in self.aggregation_keys],
            gateway_keys=[key.to_pem() for key in self.gateway_keys],
            evaluators={name: [key.to_pem() for key in keys] for name, keys in self.evaluators.items()},
            gateway_ca=self.gateway_ca,
        )
        wire = file.wire()
        # One key is written as one.
        wire["evaluators"] = {name: keys[0] if len(keys) == 1 else keys for name, keys in wire["evaluators"].items()}
        return json.dumps(wire, indent=2, sort_keys=True) + "\n"

    def _demand_one_role_each(self) -> None:
        """Whoever holds one key must not be able to act in two roles."""
        seen: dict[PublicKey, str] = {}
        roles = [("contractKeys", key) for key in set(self.contract_keys)]
        roles += [("aggregationKeys", key) for key in set(self.aggregation_keys)]
        roles += [("gatewayKeys", key) for key in set(self.gateway_keys)]
        roles += [(f"evaluators.{name}", key) for name, keys in sorted(self.evaluators.items()) for key in keys]
        for role, key in roles:
            other = seen.setdefault(key, role)
            if other != role:
                raise LineageError(
                    f"trust.json: {role} has the same key as {other} ({key.thumbprint}); each role needs its own key"
                )


def _several(field: str, pems: list[str]) -> tuple[PublicKey, ...]:
    if len(pems) == 1:
        return (_key(field, pems[0]),)
    return tuple(_key(f"{field}.{number}", pem) for number, pem in enumerate(pems))


def _key(field: str, pem: str) -> PublicKey:
    try:
        return PublicKey.from_pem(pem)
    except StatementError as error:
        raise LineageError(
            f"trust.json: {field}: {error}; give the P-256 public key as PEM, with its line breaks"
        ) from None
