"""Settings of the gateway, from its environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from concordat.controller.environment import SettingsError, http_port, required


@dataclass(frozen=True)
class Settings:
    """The gateway's surroundings."""

    namespace: str
    """Namespace of the hub."""
    registry_url: str
    """URL of the registry; nobody else reaches it."""
    site_bytes: int = 4 << 30
    """Most that a site may send into one of its repositories."""
    port: int = 8443
    http_port: int = 8080
    certificate: Path | None = None
    """Folder with tls.crt and tls.key, and ca.crt if they are by an authority of the hub's own; None: the gateway makes
    a certificate itself."""

    credentials: Path | None = None
    """Folder with username and password for the registry; None: it asks for none."""

    @classmethod
    def from_environment(cls, env: Mapping[str, str] = os.environ) -> Settings:
        """Return settings from the CONCORDAT_… variables, as the chart sets them. Raises SettingsError."""
        return cls(
            namespace=required(env, "CONCORDAT_NAMESPACE", "the namespace of the hub"),
            registry_url=required(env, "CONCORDAT_REGISTRY_URL", "the URL of the artifact registry"),
            site_bytes=_gibibytes(env) << 30,
            http_port=http_port(env),
            credentials=Path(given) if (given := env.get("CONCORDAT_REGISTRY_CREDENTIALS")) else None,
            certificate=Path(folder) if (folder := env.get("CONCORDAT_TLS_FOLDER")) else None,
        )


def _gibibytes(env: Mapping[str, str]) -> int:
    value = env.get("CONCORDAT_SITE_GIB") or "4"
    if not (value.isascii() and value.isdigit() and 0 < int(value) <= 100_000):
        raise SettingsError(f"CONCORDAT_SITE_GIB is {value!r}: set it to a whole number of GiB, for example 4")
    return int(value)
