"""What can go wrong with an artifact, told apart by who can do something about it."""

from concordat.errors import Transient


class ArtifactError(Exception):
    """An artifact could not be stored or read; trying again does not help."""


class ArtifactNotFound(ArtifactError):
    """The registry does not have it."""


class ArtifactCorrupt(ArtifactError):
    """The content does not match its digest: a person must repair the registry; trying again does not help."""


class ArtifactTooLarge(ArtifactCorrupt):
    """The content is larger than the reader accepts. Nothing of it was kept."""


class RegistryUnavailable(ArtifactError, Transient):
    """The registry does not answer; try again later."""


PERMANENT_REGISTRY_ERRORS = (ArtifactNotFound, ArtifactCorrupt)
"""Registry errors that a retry cannot fix."""
