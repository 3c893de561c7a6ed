"""The judgement of one update from its bytes: steps 1 to 4 of screening, and copies.

Whatever a site sends leads to a verdict, never to an exception.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from concordat.api.conditions import Reason
from concordat.artifacts import ArtifactError, ArtifactTooLarge, RegistryStore, RegistryUnavailable
from concordat.lora import LoraError, pad
from concordat.protocol.aggregation import ReportedUpdate, SubmittedUpdate
from concordat.protocol.artifact_types import DELTA_FILE, MAX_STATEMENT, STATEMENT_FILE
from concordat.protocol.locations import site_repository
from concordat.screening import Limits, ScreeningError, check_norms, check_schema, decimal
from concordat.statements import SignatureInvalid, StatementError, open_bundle
from concordat.statements.contract import SignedContract
from concordat.statements.names import agent_id
from concordat.statements.provenance import Provenance, read_update
from concordat.tensors import DtypeError, TensorError, map_tensors, shown
from concordat_aggregator.inputs import Parent
from concordat_aggregator.space import Space

_LOG = logging.getLogger(__name__)
MAX_MESSAGE = 500
_HEADER_ALLOWANCE = 1 << 20
_BLOCK = 1 << 18
CHARGED = frozenset({Reason.NORM_EXCEEDED, Reason.DUPLICATE})
"""Rejections up to here that use up the fault budget: a protocol violation, or one party in two places."""


@dataclass(frozen=True)
class Verdict:
    """What the hub holds of one update."""

    submission: SubmittedUpdate
    reason: Reason
    message: str
    norm: float | None = None
    update_sha256: str | None = None
    """Digest of delta.safetensors; None if the artifact could not be read."""
    statement_id: str | None = None
    """Id of the update statement; None if it is not by the site."""
    delta: Path | None = None
    """The update's file, which stays on the disk; there only while it passes."""
    measurements: Mapping[str, str] = field(default_factory=dict)
    alerts: tuple[str, ...] = ()

    @property
    def site(self) -> str:
        """Who sent it."""
        return self.submission.site

    @property
    def passed(self) -> bool:
        """Whether the update may be aggregated."""
        return self.reason is Reason.VERIFIED

    def reported(self) -> ReportedUpdate:
        """Return the verdict as it stands in the report."""
        return ReportedUpdate(
            site=self.submission.site,
            artifact=self.submission.artifact,
            statement=self.submission.statement,
            passed=self.passed,
            reason=self.reason.value,
            message=shown(self.message, MAX_MESSAGE),
            norm=None if self.norm is None else decimal(self.norm),
            measurements=dict(self.measurements),
            alerts=list(self.alerts),
            update_sha256=self.update_sha256 or self.submission.artifact.digest,
            statement_id=self.statement_id,
        )


class _Rejected(Exception):
    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Judge:
    """Judges updates against one contract. Raises only RegistryUnavailable, and OSError from the disk."""

    def __init__(self, store: RegistryStore, signed: SignedContract, parent: Parent, space: Space, work: Path) -> None:
        self._store = store
        self._signed = signed
        self._parent = parent
        self._space = space
        self._work = work / "updates"
        limits = signed.contract.screening
        module = limits.module_clip_norm
        self._limits = Limits(float(limits.clip_norm), None if module is None else float(module))

    async def judge(self, submission: SubmittedUpdate) -> Verdict:
        """The verdict on one submission by itself."""
        verdict = Verdict(submission, Reason.INVALID, "")
        try:
            statement = await self._statement(submission)
            verdict = replace(verdict, statement_id=statement.id)
            self._check_origin(submission.site, statement)
            verdict = replace(verdict, update_sha256=await self._file(submission, statement))
            delta = await self._delta(submission)
            norm = self._screen(submission.site, delta)
        except (RegistryUnavailable, OSError):
            raise
        except _Rejected as error:
            return replace(verdict, reason=error.reason, message=str(error))
        except ScreeningError as error:
            return replace(verdict, reason=error.reason, message=str(error), norm=error.norm)
        except Exception as error:
            # A bug of ours that one site can reach must not take the round from the others.
            _LOG.exception("%s: the update could not be judged", submission.site)
            return replace(
                verdict, message=f"the update could not be judged ({type(error).__name__}); see the Job's log"
            )
        message = f"norm {decimal(norm)}, at most {self._signed.contract.screening.clip_norm}"
        return replace(verdict, reason=Reason.VERIFIED, message=message, norm=norm, delta=delta)

    async def _statement(self, submission: SubmittedUpdate) -> Provenance:
        try:
            data = await self._store.read(submission.statement, STATEMENT_FILE, MAX_STATEMENT)
        except RegistryUnavailable:
            raise
        except ArtifactError as error:
            raise _Rejected(Reason.STATEMENT_INVALID, f"the update's statement cannot be read: {error}") from error
        try:
            return read_update(open_bundle(data, [self._signed.keys[submission.site]]))
        except SignatureInvalid as error:
            raise _Rejected(Reason.SIGNATURE_INVALID, str(error)) from error
        except StatementError as error:
            raise _Rejected(Reason.STATEMENT_INVALID, shown(str(error))) from error

    def _check_origin(self, site: str, statement: Provenance) -> None:
        contract, stated = self._signed.contract, statement.parameters
        round_uid = stated.get("round")
        if stated.get("site") != site or statement.builder != agent_id(site) or not isinstance(round_uid, str):
            raise _Rejected(Reason.STATEMENT_INVALID, f"the statement names no round or another site than {site}")
        if round_uid != contract.round.uid:
            raise _Rejected(
                Reason.REPLAYED, f"the update was made in round {shown(round_uid)}, this is {contract.round.uid}"
            )
        try:
            made_under, base, parent = (statement.one(role) for role in ("contract", "base", "parent"))
            statement.one("consent")
        except StatementError as error:
            raise _Rejected(Reason.STATEMENT_INVALID, shown(str(error))) from error
        if made_under != self._signed.digest or stated.get("contract") != self._signed.digest:
            raise _Rejected(
                Reason.CONTRACT_MISMATCH, f"made under contract {made_under}, this round's is {self._signed.digest}"
            )
        for role, found, wanted in (("base", base, contract.base), ("parent", parent, contract.parent)):
            if found != wanted.digest:
                raise _Rejected(Reason.PARENT_MISMATCH, f"made from {role} {found}, the contract's is {wanted.digest}")

    async def _file(self, submission: SubmittedUpdate, statement: Provenance) -> str:
        contract = self._signed.contract
        slot = site_repository(contract.federation, contract.round.uid, submission.site)
        if submission.artifact.repository != slot:
            raise _Rejected(
                Reason.ARTIFACT_UNREADABLE,
                f"the artifact is in {submission.artifact.repository}; only {slot} is read for this site",
            )
        try:
            files = await self._store.file_digests(submission.artifact)
        except RegistryUnavailable:
            raise
        except ArtifactError as error:
            raise _Rejected(Reason.ARTIFACT_UNREADABLE, str(error)) from error
        if set(files) != {DELTA_FILE}:
            raise _Rejected(Reason.ARTIFACT_UNREADABLE, f"the artifact must hold exactly {DELTA_FILE}")
        if files[DELTA_FILE] != statement.subject:
            raise _Rejected(
                Reason.STATEMENT_INVALID, f"the statement is about {statement.subject}, not about {files[DELTA_FILE]}"
            )
        return files[DELTA_FILE]

    async def _delta(self, submission: SubmittedUpdate) -> Path:
        """The update's file on the disk, readable as tensors."""
        limit = self._parent.size + _HEADER_ALLOWANCE
        # By digest: what an earlier container of the pod fetched is not fetched again.
        folder = self._work / submission.artifact.digest.removeprefix("sha256:")
        try:
            size = (await self._store.files(submission.artifact))[DELTA_FILE].size
            if size > limit:
                raise ArtifactTooLarge(f"{DELTA_FILE} has {size} bytes, at most {limit} are accepted")
            path = await self._store.pull(submission.artifact, folder) / DELTA_FILE
            map_tensors(path)
        except RegistryUnavailable:
            raise
        except DtypeError as error:
            raise _Rejected(Reason.SCHEMA_MISMATCH, str(error)) from error
        except TensorError as error:
            raise _Rejected(Reason.ARTIFACT_UNREADABLE, f"{DELTA_FILE}: {error}") from error
        except ArtifactError as error:
            raise _Rejected(Reason.ARTIFACT_UNREADABLE, str(error)) from error
        return path

    def _screen(self, site: str, path: Path) -> float:
        factor = self._signed.contract.recipe.train_factor
        try:
            delta = pad(map_tensors(path), self._parent.adapter, factor)
        except LoraError as error:
            raise ScreeningError(Reason.SCHEMA_MISMATCH, str(error)) from error
        check_schema(delta, self._parent.tensors, factor)
        norm = check_norms(self._space.norms(delta), self._limits)
        self._space.admit(site, delta)
        return norm


def reject_copies(verdicts: Iterable[Verdict]) -> list[Verdict]:
    """By site name; of updates with equal values only the first passes.

    Values are compared, not files: a copy with another header, or with −0 for 0, is still a copy.
    """
    first: dict[bytes, str] = {}
    out: list[Verdict] = []
    for verdict in sorted(verdicts, key=lambda v: v.site):
        if verdict.delta is not None:
            owner = first.setdefault(_fingerprint(map_tensors(verdict.delta)), verdict.site)
            if owner != verdict.site:
                message = f"the update equals that of {owner}, value for value"
                verdict = replace(verdict, reason=Reason.DUPLICATE, message=message, delta=None)
        out.append(verdict)
    return out


def _fingerprint(delta: Mapping[str, NDArray[Any]]) -> bytes:
    digest = hashlib.sha256()
    for name in sorted(delta):
        flat = delta[name].reshape(-1)
        for start in range(0, flat.size, _BLOCK):
            digest.update((flat[start : start + _BLOCK] + np.float32(0)).tobytes())
    return digest.digest()
