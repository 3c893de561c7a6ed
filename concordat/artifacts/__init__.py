"""Content-addressed artifacts, in an OCI registry."""

from concordat.artifacts.access import Access
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
    "Access",
    "ArtifactCorrupt",
    "ArtifactError",
    "ArtifactNotFound",
    "ArtifactTooLarge",
    "RegistryStore",
    "RegistryUnavailable",
]
