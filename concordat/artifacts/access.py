"""A program's way in where its requests go: a token, and whose certificate it believes."""

from __future__ import annotations

import base64
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

TOKEN = Path("/var/run/secrets/concordat/token")
"""The pod's token for the gateway; the kubelet renews it."""


@dataclass(frozen=True)
class Access:
    """Credentials for one registry, or the gateway in front of it."""

    token: Callable[[], str | None] = lambda: None
    """Returns the token to show, each time anew, since it is renewed; None: none is shown."""
    ca: str | None = None
    """PEM certificates that the server's must be signed by; None: those that the system trusts."""
    scheme: str = "Bearer"
    """How the token is shown (RFC 6750; Basic: RFC 7617)."""
    server_name: str | None = None
    """Name in the server's certificate where that is not the one in the URL."""

    @classmethod
    def of_pod(cls, ca: str | None = None, token: Path = TOKEN) -> Access:
        """Return that of a pod: its token for the gateway, if one is mounted."""

        def read() -> str | None:
            try:
                return token.read_text().strip()
            except FileNotFoundError:
                return None

        return cls(token=read, ca=ca)

    @classmethod
    def basic(cls, folder: Path) -> Access:
        """Return that of a user: files `username` and `password` in a folder, as a basic-auth Secret has them."""

        def read() -> str:
            user, password = ((folder / name).read_text().strip() for name in ("username", "password"))
            return base64.b64encode(f"{user}:{password}".encode()).decode()

        return cls(token=read, scheme="Basic")

    def headers(self) -> dict[str, str]:
        """Return the headers that show the token."""
        shown = self.token()
        return {"Authorization": f"{self.scheme} {shown}"} if shown else {}

    @cached_property
    def tls(self) -> dict[str, Any]:
        """Return what aiohttp is told of TLS. Raises ssl.SSLError if `ca` is no certificate."""
        if self.ca is None:
            return {}
        context = ssl.create_default_context(cadata=self.ca)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        return {"ssl": context, "server_hostname": self.server_name}
