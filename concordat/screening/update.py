"""Steps 1 to 4 of screening: one update by itself, from its bytes. Nothing here reads a registry.

What the site signed is checked by `concordat.lineage.site`: a lineage must accept whatever is aggregated.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from concordat.api.conditions import Reason
from concordat.api.round import Factor, Screening
from concordat.api.types import ArtifactRef
from concordat.protocol.artifact_types import DELTA_FILE
from concordat.protocol.locations import site_repository
from concordat.screening.errors import ScreeningError
from concordat.screening.norms import Limits
from concordat.statements.contract import SignedContract
from concordat.statements.provenance import Provenance
from concordat.tensors import Named, NotFiniteError, TensorError, Tensors, check_schema, pad

_BLOCK = 1 << 18
CHARGED = frozenset({Reason.NORM_EXCEEDED, Reason.DUPLICATE})
"""Rejections before step 6 that use up the fault budget: a protocol violation, or one party in two places."""


def check_place(artifact: ArtifactRef, site: str, signed: SignedContract) -> None:
    """Check that the artifact is in the one repository that is read for this site. Raises ScreeningError."""
    contract = signed.contract
    slot = site_repository(contract.federation, contract.round.uid, site)
    if artifact.repository != slot:
        raise ScreeningError(
            Reason.ARTIFACT_UNREADABLE,
            f"the artifact is in {artifact.repository}; only {slot} is read for this site",
        )


def check_files(files: Mapping[str, str], statement: Provenance) -> str:
    """Return the digest of the delta among an artifact's files, by name. Raises ScreeningError.

    There must be no other file, and it must be the one the statement is about.
    """
    if set(files) != {DELTA_FILE}:
        raise ScreeningError(Reason.ARTIFACT_UNREADABLE, f"the artifact must hold exactly {DELTA_FILE}")
    digest = files[DELTA_FILE]
    if digest != statement.subject:
        raise ScreeningError(
            Reason.STATEMENT_INVALID, f"the statement is about {statement.subject}, not about {digest}"
        )
    return digest


def check_form(delta: Named, parent: Named, factor: Factor) -> Tensors:
    """Return the update in the parent's rank, if it has the form of one. Raises ScreeningError."""
    try:
        padded = pad(delta, parent, factor)
        check_schema(padded, parent, factor)
    except NotFiniteError as error:
        raise ScreeningError(Reason.NOT_FINITE, str(error)) from error
    except TensorError as error:
        raise ScreeningError(Reason.SCHEMA_MISMATCH, str(error)) from error
    return padded


def norm_limits(screening: Screening) -> Limits:
    """Return the contract's norm limits as numbers."""
    module = screening.module_clip_norm
    return Limits(float(screening.clip_norm), None if module is None else float(module))


def fingerprint(delta: Mapping[str, NDArray[Any]]) -> bytes:
    """Return a digest of the values: a copy with another file header, or with −0 for 0, has the same."""
    digest = hashlib.sha256()
    for name in sorted(delta):
        flat = delta[name].reshape(-1)
        for start in range(0, flat.size, _BLOCK):
            digest.update((flat[start : start + _BLOCK] + np.float32(0)).tobytes())
    return digest.digest()
