"""Content-addressed artifacts, in an OCI registry."""

from concordat.artifacts.errors import (
    PERMANENT_REGISTRY_ERRORS,
    ArtifactCorrupt,
    ArtifactError,
    ArtifactNotFound,
    ArtifactTooLarge,
    RegistryUnavailable,
)
from concordat.artifacts.registry import RegistryStore

__all__ = [
    "PERMANENT_REGISTRY_ERRORS",
    "ArtifactCorrupt",
    "ArtifactError",
    "ArtifactNotFound",
    "ArtifactTooLarge",
    "RegistryStore",
    "RegistryUnavailable",
]
