"""The one JSON form of what is signed or named by digest: RFC 8785, without floats."""

from __future__ import annotations

import hashlib
from typing import Any

import rfc8785


class NotCanonicalizable(ValueError):
    """The document holds what JSON cannot carry exactly. The message says what."""


def canonical(document: Any) -> bytes:
    """Return RFC 8785 bytes. Raises NotCanonicalizable for what JSON cannot carry exactly (floats, large integers)."""
    _no_floats(document)
    try:
        return rfc8785.dumps(document)
    except (rfc8785.CanonicalizationError, UnicodeEncodeError) as error:
        # The second is for a lone surrogate in a key, which JSON can spell and UTF-8 cannot.
        raise NotCanonicalizable(f"not canonicalizable: {error}") from error


def sha256_digest(data: bytes) -> str:
    """Return `sha256:<hex>` of the data."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def _no_floats(value: Any) -> None:
    if isinstance(value, float):
        raise NotCanonicalizable(f"{value!r} is a float; use an integer or a decimal string")
    if isinstance(value, dict):
        for inner in value.values():
            _no_floats(inner)
    elif isinstance(value, list):
        for inner in value:
            _no_floats(inner)
