"""The way to the hub's gateway for grants: two requests, and what its answers mean for the agent."""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Protocol, Self

from pydantic import ValidationError

from concordat.api.types import Model
from concordat.artifacts import Access, ArtifactError, RegistryUnavailable
from concordat.artifacts.http import Http, Refused

_OK = (200,)
_MOST_BYTES = 64 << 10


class GrantRefused(Exception):
    """The hub's gateway gives no grant, and asking again does not help. The message says why."""


class StaleNonce(Exception):
    """The gateway does not take the nonce any more: ask for another."""


class Gateway(Protocol):
    """Where an agent gets its grants. Each call raises GrantRefused, or RegistryUnavailable to be tried again."""

    async def challenge(self, contract_digest: str) -> str:
        """Return a nonce for evidence under that contract."""

    async def grant(self, evidence: bytes, training: bytes | None = None) -> bytes:
        """Return the grant for evidence; `training` is the one before it. Raises StaleNonce too."""


class _Challenge(Model):
    nonce: str


class _Grant(Model):
    grant: str


class HttpGateway:
    """The gateway behind a URL; use as an async context manager. `access` is how it lets the agent in."""

    def __init__(self, url: str, access: Access) -> None:
        self._http = Http(url, access=access)

    async def __aenter__(self) -> Self:
        await self._http.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.close()

    async def challenge(self, contract_digest: str) -> str:
        """Return a nonce for evidence under that contract. Raises GrantRefused, RegistryUnavailable."""
        return _Challenge.model_validate(await self._post("v1/challenges", {"contract": contract_digest})).nonce

    async def grant(self, evidence: bytes, training: bytes | None = None) -> bytes:
        """Return the grant for evidence. Raises GrantRefused, StaleNonce, RegistryUnavailable."""
        sent = {"evidence": evidence.decode()} | ({"training": training.decode()} if training is not None else {})
        return _Grant.model_validate(await self._post("v1/grants", sent)).grant.encode()

    async def _post(self, path: str, body: Mapping[str, Any]) -> Any:
        data, headers = json.dumps(body).encode(), {"Content-Type": "application/json"}

        async def ask() -> bytes:
            async with self._http.once("POST", path, _OK, data, headers) as response:
                return await response.content.read(_MOST_BYTES)

        try:
            return json.loads(await self._http.again(f"POST {path}", ask))
        except Refused as error:
            said = _said(error.text)
            if error.status == 409:
                raise StaleNonce(said) from None
            if error.status in (400, 403):
                raise GrantRefused(said) from None
            raise
        except RegistryUnavailable as error:
            if not isinstance(error.__cause__, Refused):
                raise
            raise RegistryUnavailable(f"the hub's gateway gives no grant yet: {_said(error.__cause__.text)}") from None
        except (ValueError, ValidationError) as error:
            raise ArtifactError(f"the gateway's answer to POST {path} cannot be read: {error}") from None


def _said(text: str) -> str:
    """Return the message in an answer; whatever it is, if it has another form."""
    try:
        return str(json.loads(text)["errors"][0]["message"])
    except (ValueError, KeyError, IndexError, TypeError):
        return text
