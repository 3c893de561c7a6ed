"""The site's keys: the one in use, and while it is replaced the next. Private keys never leave this process."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from concordat.api.site import AgentKey
from concordat.statements import PublicKey, SigningKey, write_once_key
from concordat.statements.enrolment import enrolment


class Keyring:
    """The site's keys, the newest first."""

    def __init__(self, newest: SigningKey, before: SigningKey | None = None) -> None:
        self._keys = (newest,) if before is None else (newest, before)
        self._shown: tuple[tuple[str, str], list[AgentKey]] | None = None

    @classmethod
    def load(cls, path: Path, version: int = 1) -> Keyring:
        """Return the key of that version, made if there is none, and the one before it if it is still there.

        `path` is the file of version 1. Raises StatementError, OSError.
        """
        before = _file(path, version - 1)
        kept = write_once_key(before) if version > 1 and before.exists() else None
        return cls(write_once_key(_file(path, version)), kept)

    @property
    def public(self) -> tuple[PublicKey, ...]:
        """Return the public keys, the newest first."""
        return tuple(key.public for key in self._keys)

    def choose(self, thumbprint: str | None) -> SigningKey:
        """Return the key of that thumbprint; the newest if there is none such."""
        return next((key for key in self._keys if key.public.thumbprint == thumbprint), self._keys[0])

    def shown(self, site: str, site_uid: str) -> list[AgentKey]:
        """Return what the hub is shown: each key, with the proof that this site holds it, for this Site object."""
        # Asked at each change of an Update or a Release: signed once for each Site object.
        if self._shown is None or self._shown[0] != (site, site_uid):
            shown = [
                AgentKey(
                    public_key=key.public.to_pem(),
                    proof=_statement(key.public, site, site_uid, key),
                    endorsement=_statement(key.public, site, site_uid, before[0]) if before else None,
                )
                for key, before in _with_older(self._keys)
            ]
            self._shown = (site, site_uid), shown
        return self._shown[1]


def _with_older(keys: Sequence[SigningKey]) -> list[tuple[SigningKey, Sequence[SigningKey]]]:
    return [(key, keys[at + 1 :]) for at, key in enumerate(keys)]


def _statement(key: PublicKey, site: str, site_uid: str, signer: SigningKey) -> str:
    return enrolment(key, site, site_uid, signer).decode()


def _file(path: Path, version: int) -> Path:
    return path if version == 1 else path.with_name(f"{path.stem}-{version}{path.suffix}")
