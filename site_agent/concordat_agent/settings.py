"""Where the agent runs, from its environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from concordat.controller.environment import SettingsError, http_port, required


@dataclass(frozen=True)
class Settings:
    """The agent's surroundings. A site's name is its namespace's name."""

    site: str
    registry_url: str
    http_port: int = 8080
    workspace: Path = Path("/workspace")
    key: Path = Path("/var/lib/concordat/site.key")
    key_version: int = 1
    policy: Path = Path("/etc/concordat/policy.json")
    trust: Path = Path("/etc/concordat/trust.json")

    @property
    def history(self) -> Path:
        """Return the file with the highest sequence adopted, beside the key: both outlive the agent's pod."""
        return self.key.with_name("adopted.json")

    @property
    def ledger(self) -> Path:
        """Return the file with the consents of the last days, there too."""
        return self.key.with_name("consents.json")

    @property
    def notes(self) -> Path:
        """Return the folder of the agent's notes, there too."""
        return self.key.with_name("notes")

    @classmethod
    def from_environment(cls, env: Mapping[str, str] = os.environ) -> Settings:
        """Return settings from CONCORDAT_SITE, CONCORDAT_REGISTRY_URL, CONCORDAT_HTTP_PORT and
        CONCORDAT_KEY_VERSION. Raises SettingsError.
        """
        return cls(
            site=required(env, "CONCORDAT_SITE", "the name of the site, which is that of its namespace"),
            registry_url=required(env, "CONCORDAT_REGISTRY_URL", "the URL of the hub's artifact registry"),
            http_port=http_port(env),
            key_version=_key_version(env),
        )


def _key_version(env: Mapping[str, str]) -> int:
    value = env.get("CONCORDAT_KEY_VERSION") or "1"
    if not (value.isascii() and value.isdigit() and 0 < int(value) < 1000):
        raise SettingsError(f"CONCORDAT_KEY_VERSION is {value!r}: set it to a whole number from 1 on, for example 2")
    return int(value)
