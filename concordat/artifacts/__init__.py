"""Content-addressed artifacts, in an OCI registry."""

from concordat.artifacts.errors import (
    ArtifactCorrupt,
    ArtifactError,
    ArtifactNotFound,
    ArtifactTooLarge,
    RegistryUnavailable,
)
from concordat.artifacts.registry import RegistryStore

__all__ = [
    "ArtifactCorrupt",
    "ArtifactError",
    "ArtifactNotFound",
    "ArtifactTooLarge",
    "RegistryStore",
    "RegistryUnavailable",
]
