"""Settings from a program's environment, with messages that name the variable and the remedy."""

from __future__ import annotations

from collections.abc import Mapping


class SettingsError(Exception):
    """The environment does not say what the program needs. The message names the variable and the remedy."""


def required(env: Mapping[str, str], name: str, meaning: str) -> str:
    """Return a variable's value. Raises SettingsError if it is not set; `meaning` says what to set it to."""
    value = env.get(name, "")
    if not value:
        raise SettingsError(f"{name} is not set: set it to {meaning}")
    return value


def http_port(env: Mapping[str, str]) -> int:
    """Return CONCORDAT_HTTP_PORT, the port of probes and metrics; 8080 if it is not set. Raises SettingsError."""
    port = env.get("CONCORDAT_HTTP_PORT", "8080")
    if not (port.isascii() and port.isdigit() and int(port) < 65536):
        raise SettingsError(f"CONCORDAT_HTTP_PORT is {port!r}: set it to a port number, for example 8080")
    return int(port)
