"""Each update by itself: fetched from the registry and put through steps 1 to 4 of screening; and step 5, copies.

Whatever a site sends leads to a verdict, never to an exception. What a site signed is checked by the functions that
verify a lineage.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from concordat.aggregation.blocks import one_blas_thread
from concordat.api.attestation import AttestationResult
from concordat.api.conditions import Reason
from concordat.api.types import ArtifactRef
from concordat.artifacts import ArtifactError, ArtifactTooLarge, RegistryStore, RegistryUnavailable
from concordat.artifacts.http import CONNECTIONS
from concordat.lineage import SiteRefused
from concordat.lineage.grants import check_grant, open_update_grant
from concordat.lineage.site import check_consent, check_update, line_of, open_consent, open_update
from concordat.protocol.aggregation import ReportedUpdate, SubmittedUpdate
from concordat.protocol.artifact_types import DELTA_FILE, GRANT_FILE, MAX_GRANT, MAX_STATEMENT, STATEMENT_FILE
from concordat.screening import ScreeningError, check_norms, decimal, update
from concordat.statements import PublicKey
from concordat.statements.contract import SignedContract
from concordat.statements.grant import Grant
from concordat.tensors import FormError, TensorError, map_tensors, shown
from concordat_aggregator.inputs import Parent
from concordat_aggregator.method import Method

_LOG = logging.getLogger(__name__)
MAX_MESSAGE = 500
_AT_ONCE = 2
"""Updates measured at a time: as many as the Job has processors, each with one copy of an update in memory."""
_HEADER_ALLOWANCE = 1 << 20


@dataclass(frozen=True)
class UpdateVerdict:
    """The hub's verdict on one update."""

    submission: SubmittedUpdate
    reason: Reason
    message: str
    arrived: int
    """Place in the order in which the hub saw the updates arrive."""
    norm: float | None = None
    update_sha256: str | None = None
    """Digest of delta.safetensors; None if the artifact could not be read."""
    statement_id: str | None = None
    """Id of the update statement; None if it is not by the site."""
    grant: Grant | None = None
    """By which the update was sent; None if it does not hold."""
    lines: tuple[bytes, ...] = ()
    """Consent, update and grant as they stand in the lineage, once all hold."""
    delta: Path | None = None
    """The update's file, which stays on the disk; there only while it passes."""
    measurements: Mapping[str, str] = field(default_factory=dict)
    alerts: tuple[str, ...] = ()

    @property
    def site(self) -> str:
        """The site that sent it."""
        return self.submission.site

    @property
    def passed(self) -> bool:
        """True if the update may be aggregated."""
        return self.reason is Reason.VERIFIED

    def reported(self) -> ReportedUpdate:
        """Return the verdict as it stands in the report."""
        return ReportedUpdate(
            site=self.submission.site,
            artifact=self.submission.artifact,
            statement=self.submission.statement,
            consent=self.submission.consent,
            passed=self.passed,
            reason=self.reason.value,
            message=shown(self.message, MAX_MESSAGE),
            norm=None if self.norm is None else decimal(self.norm),
            measurements=dict(self.measurements),
            alerts=list(self.alerts),
            update_sha256=self.update_sha256 or self.submission.artifact.digest,
            attestation=AttestationResult(tier=self.grant.tier, grant=self.grant.id) if self.grant else None,
            statement_id=self.statement_id,
        )


class Verifier:
    """Verifies updates against one contract. Raises only RegistryUnavailable, and OSError from the disk."""

    def __init__(
        self,
        store: RegistryStore,
        signed: SignedContract,
        gateway_keys: Collection[PublicKey],
        parent: Parent,
        method: Method,
        work: Path,
    ) -> None:
        self._store = store
        self._signed = signed
        self._gateway_keys = gateway_keys
        self._parent = parent
        self._method = method
        self._work = work / "updates"
        self._norms = work / "norms"
        self._norms.mkdir(parents=True, exist_ok=True)
        self._measuring = asyncio.Semaphore(_AT_ONCE)
        self._limits = update.norm_limits(signed.contract.screening)

    async def verify_all(self, submissions: Sequence[SubmittedUpdate]) -> list[UpdateVerdict]:
        """Return the verdict on each, in the order of their arrival, several at a time."""
        free = asyncio.Semaphore(CONNECTIONS)

        async def one(submission: SubmittedUpdate, arrived: int) -> UpdateVerdict:
            async with free:
                return await self.verify(submission, arrived)

        # Whole updates are what the processors share, not the products of small matrices.
        with one_blas_thread():
            return await asyncio.gather(*(one(submission, i) for i, submission in enumerate(submissions)))

    async def verify(self, submission: SubmittedUpdate, arrived: int) -> UpdateVerdict:
        """Return the verdict on one submission by itself; it was the one that `arrived` others came before."""
        verdict = UpdateVerdict(submission, Reason.INVALID, "", arrived)
        site, signed = submission.site, self._signed
        try:
            update_line = await self._line(submission.statement, "update", Reason.STATEMENT_INVALID)
            statement = open_update(update_line, site, signed)
            verdict = replace(verdict, statement_id=statement.id)
            check_update(statement, site, signed)
            consent_line = await self._line(submission.consent, "consent", Reason.CONSENT_INVALID)
            check_consent(open_consent(consent_line, site, signed), statement, site, signed)
            grant_line = await self._line(submission.statement, "grant", Reason.GRANT_INVALID, GRANT_FILE, MAX_GRANT)
            grant = open_update_grant(grant_line, site, self._gateway_keys)
            check_grant(grant, statement, site, signed)
            verdict = replace(verdict, lines=(consent_line, update_line, grant_line), grant=grant)
            update.check_place(submission.artifact, site, signed)
            with _unreadable():
                files = await self._store.files(submission.artifact)
            digests = {name: file.digest for name, file in files.items()}
            verdict = replace(verdict, update_sha256=update.check_files(digests, statement))
            path = await self._fetch(submission.artifact, files[DELTA_FILE].size)
            async with self._measuring:
                norm = await asyncio.to_thread(self._measure, site, submission.artifact.digest, path)
        except (RegistryUnavailable, OSError):
            raise
        except ScreeningError as error:
            return replace(verdict, reason=error.reason, message=str(error), norm=error.norm)
        except SiteRefused as error:
            return replace(verdict, reason=error.reason, message=shown(str(error)))
        except Exception as error:
            # A bug of ours that one site can reach must not take the round from the others.
            _LOG.exception("%s: the update could not be verified", site)
            return replace(
                verdict, message=f"the update could not be verified ({type(error).__name__}); see the Job's log"
            )
        message = f"norm {decimal(norm)}, at most {signed.contract.screening.clip_norm}"
        return replace(verdict, reason=Reason.VERIFIED, message=message, norm=norm, delta=path)

    async def _line(
        self,
        ref: ArtifactRef | None,
        what: str,
        reason: Reason,
        file: str = STATEMENT_FILE,
        limit: int = MAX_STATEMENT,
    ) -> bytes:
        """Return a statement of the site as it would stand in the lineage. Raises SiteRefused with that reason."""
        if ref is None:
            raise SiteRefused(reason, f"the status of the Update names no {what}")
        try:
            data = await self._store.read(ref, file, limit)
        except RegistryUnavailable:
            raise
        except ArtifactError as error:
            raise SiteRefused(reason, f"the {what}'s statement cannot be read: {error}") from error
        return line_of(data, reason)

    async def _fetch(self, artifact: ArtifactRef, size: int) -> Path:
        """Return the update's file of `size` bytes on the disk, readable as tensors."""
        limit = self._parent.size + _HEADER_ALLOWANCE
        # By digest: what an earlier container of the pod fetched is not fetched again.
        folder = self._work / artifact.digest.removeprefix("sha256:")
        with _unreadable():
            if size > limit:
                raise ArtifactTooLarge(f"{DELTA_FILE} has {size} bytes, at most {limit} are accepted")
            path = await self._store.pull(artifact, folder) / DELTA_FILE
            map_tensors(path)
        return path

    def _measure(self, site: str, digest: str, path: Path) -> float:
        """Check form and norms, and hand the update to the method; returns its norm. Raises ScreeningError.

        Once in a pod: the norm is written when everything else is.
        """
        record = self._norms / site
        if record.exists():
            of, norm = record.read_text().split()
            if of == digest:
                return float(norm)
        delta = update.check_form(map_tensors(path), self._parent.tensors, self._signed.contract.recipe.train_factor)
        measured, norms = self._method.measure(delta)
        total = check_norms(norms, self._limits)
        record.unlink(missing_ok=True)
        self._method.admit(site, measured)
        part = self._norms / f".{site}"
        part.write_text(f"{digest} {total!r}")
        os.replace(part, record)
        return total


def reject_copies(verdicts: Iterable[UpdateVerdict]) -> list[UpdateVerdict]:
    """Return the verdicts by site name; of updates with equal values only the first to arrive passes."""
    verdicts = list(verdicts)
    # Equal values have equal norms, to the last bit: the others need not be read.
    norms = Counter(verdict.norm for verdict in verdicts)
    first: dict[bytes, str] = {}
    out: list[UpdateVerdict] = []
    for verdict in sorted(verdicts, key=lambda v: v.arrived):
        if verdict.delta is not None and norms[verdict.norm] > 1:
            owner = first.setdefault(update.fingerprint(map_tensors(verdict.delta)), verdict.site)
            if owner != verdict.site:
                message = f"the update equals that of {owner}, which came first, value for value"
                verdict = replace(verdict, reason=Reason.DUPLICATE, message=message, delta=None)
        out.append(verdict)
    return sorted(out, key=lambda v: v.site)


@contextmanager
def _unreadable() -> Iterator[None]:
    """Turn what is wrong with an artifact into a verdict; an outage of the registry passes."""
    try:
        yield
    except RegistryUnavailable:
        raise
    except FormError as error:
        raise ScreeningError(Reason.SCHEMA_MISMATCH, str(error)) from error
    except TensorError as error:
        raise ScreeningError(Reason.ARTIFACT_UNREADABLE, f"{DELTA_FILE}: {error}") from error
    except ArtifactError as error:
        raise ScreeningError(Reason.ARTIFACT_UNREADABLE, str(error)) from error
