"""Where the operator runs, from its environment."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from concordat.controller import default_identity
from concordat.controller.environment import SettingsError, http_port, required

_DIGEST = re.compile(r"^[a-z0-9][a-zA-Z0-9._:/-]*@sha256:[a-f0-9]{64}$")


LEAST_HISTORY_LIMIT = 3
"""As the schema of the chart has it: the newest release, the one before it, and one more that sites may still use."""


@dataclass(frozen=True)
class Settings:
    """The operator's surroundings."""

    namespace: str
    """Namespace of the hub."""
    registry_url: str
    operator_image: str
    """Image of the aggregator Job, by digest: the operator's own."""
    learning_image: str | None = None
    """Image of the training and evaluation Jobs where a round names none."""
    runtime_class: str | None = None
    """RuntimeClass of those Jobs."""
    identity: str = field(default_factory=default_identity)
    """Name of this replica in the leader's Lease; no two processes have the same."""
    writes_per_second: float = 100.0
    """How fast the operator writes to the API server at most, whose priority and fairness see to the rest."""
    http_port: int = 8080
    history_limit: int = 10
    """Ended rounds, and approved releases, that each federation keeps; at least LEAST_HISTORY_LIMIT."""

    @classmethod
    def from_environment(cls, env: Mapping[str, str] = os.environ) -> Settings:
        """Return settings from the CONCORDAT_… variables, as the chart sets them. Raises SettingsError."""
        return cls(
            namespace=required(env, "CONCORDAT_NAMESPACE", "the namespace of the hub"),
            registry_url=required(env, "CONCORDAT_REGISTRY_URL", "the URL of the artifact registry"),
            operator_image=_image(env, "CONCORDAT_OPERATOR_IMAGE")
            or required(env, "CONCORDAT_OPERATOR_IMAGE", "an image by digest (name@sha256:…)"),
            learning_image=_image(env, "CONCORDAT_LEARNING_IMAGE"),
            runtime_class=env.get("CONCORDAT_RUNTIME_CLASS") or None,
            identity=env.get("POD_NAME") or default_identity(),
            writes_per_second=_rate(env, "CONCORDAT_WRITES_PER_SECOND"),
            http_port=http_port(env),
            history_limit=_history_limit(env),
        )


def _history_limit(env: Mapping[str, str]) -> int:
    value = env.get("CONCORDAT_HISTORY_LIMIT") or str(Settings.history_limit)
    if not value.isdecimal() or int(value) < LEAST_HISTORY_LIMIT:
        raise SettingsError(
            f"CONCORDAT_HISTORY_LIMIT is {value!r}: give a whole number of at least {LEAST_HISTORY_LIMIT}"
        )
    return int(value)


def _rate(env: Mapping[str, str], name: str) -> float:
    value = env.get(name) or "100"
    if not (value.isascii() and value.isdigit() and 0 < int(value) <= 10_000):
        raise SettingsError(f"{name} is {value!r}: set it to a whole number from 1 to 10000, for example 100")
    return float(value)


def _image(env: Mapping[str, str], name: str) -> str | None:
    value = env.get(name) or None
    if value is not None and not _DIGEST.match(value):
        raise SettingsError(f"{name} is {value!r}: give the image by digest, as name@sha256:<64 hex digits>")
    return value
