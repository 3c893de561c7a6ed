"""The three Jobs. Operator and agent build them alike: one to create it, the other to compare it."""

from __future__ import annotations

from typing import Any

from concordat.api import FederationRound, Release, Site, Update
from concordat.api.types import (
    LABEL_FEDERATION,
    LABEL_RELEASE,
    LABEL_ROUND,
    LABEL_ROUND_UID,
    LABEL_SITE,
    ArtifactRef,
)
from concordat.api.update import update_name
from concordat.jobs.pod import Before, JobError, JobTemplate, Size
from concordat.protocol.contract import Contract
from concordat.protocol.locations import GATEWAY_AUDIENCE, base_folder, inputs_folder, outputs_folder

TRAINER, EVALUATOR, AGGREGATOR = "trainer", "evaluator", "aggregator"
"""Names of the containers."""

_STAGING_SECONDS = 600
"""Beside the budget, to be scheduled, pull the image and load the libraries, on a busy node a tenth as fast too."""
_KEPT_SECONDS = 86_400
"""How long operator and agents may be away without losing the outcome of a Job."""
_EVALUATION_SECONDS = 1800
_EVALUATION_SIZE = Size(cpu="1", memory="2Gi")
_AGGREGATION_SECONDS = 1800
_AGGREGATION_SIZE = Size(cpu="2", memory="2Gi", scratch="32Gi")
# Updates and what is made of them lie on the disk, not in memory.
_WORK = "/tmp/work"  # noqa: S108 - the pod's own emptyDir
_CHECKED = "/checked"
_TOKEN = {"audience": GATEWAY_AUDIENCE, "expirationSeconds": 3600, "path": "token"}


def training_job(contract: Contract, update: Update, site: Site) -> dict[str, Any]:
    """Return the Job that trains for an Update. Raises JobError if the site takes no part in the federation."""
    ref = update.spec.round_ref
    return JobTemplate(
        name=update.metadata.name,
        owner=update,
        labels={
            LABEL_ROUND: ref.name,
            LABEL_ROUND_UID: ref.uid,
            LABEL_SITE: update.spec.site,
            LABEL_FEDERATION: update.spec.federation,
        },
        container=TRAINER,
        image=contract.image,
        command=_learning("train"),
        service_account="concordat-trainer",
        size=Size(cpu=contract.budget.cpu, memory=contract.budget.memory),
        seconds=contract.budget.max_wall_seconds + _STAGING_SECONDS,
        # Whenever it ends, it is there until a day after the deadline by which its result can be sent.
        kept_seconds=_KEPT_SECONDS + int((contract.submission_deadline - contract.opens).total_seconds()),
        runtime_class=contract.runtime_class_name,
        suspend=True,
        **_site_volumes(site, update.spec.federation, update.metadata.name, contract.base),
    ).manifest()


def evaluation_job(release: Release, site: Site) -> dict[str, Any]:
    """Return the Job that measures a namespace's copy of a Release, with the image that its Site names for that.

    Raises JobError if the Site takes no part in the federation.
    """
    name, spec = release.metadata.name, release.spec
    made = {LABEL_ROUND: spec.round_ref.name, LABEL_ROUND_UID: spec.round_ref.uid} if spec.round_ref else {}
    return JobTemplate(
        name=name,
        owner=release,
        labels={
            **made,
            LABEL_RELEASE: name,
            LABEL_SITE: site.metadata.name,
            LABEL_FEDERATION: spec.federation,
        },
        container=EVALUATOR,
        image=site.spec.judging_image,
        command=_learning("evaluate"),
        service_account="concordat-trainer",
        size=_EVALUATION_SIZE,
        seconds=_EVALUATION_SECONDS,
        kept_seconds=_KEPT_SECONDS,
        runtime_class=spec.runtime_class_name,
        suspend=True,
        **_site_volumes(site, spec.federation, name, spec.base),
    ).manifest()


def aggregation_job(
    round_: FederationRound,
    contract: Contract,
    *,
    request: ArtifactRef,
    image: str,
    registry_url: str,
    gateway_ca: str | None = None,
    canary_image: str | None = None,
    run: int = 1,
) -> dict[str, Any]:
    """Return the Job that judges and aggregates a round's updates, in the hub. It names its result in its last words.

    With a canary, four containers come first: the same program up to what is to be checked, and the check, which needs
    the hub's own learning image, `canary_image`; once for the updates, once for the candidate. The check reads what the
    program laid out and cannot change it; what it found lies on a volume that the program only reads. The program alone
    has a token, for the gateway and nobody else. Raises JobError without the image.
    """
    command = [
        *("python", "-m", "concordat_aggregator"),
        *("--registry", registry_url),
        *(("--ca", gateway_ca) if gateway_ca is not None else ()),
        *("--request", f"{request.repository}@{request.digest}"),
        *("--work", _WORK),
    ]
    canary = contract.screening.canary
    before: list[Before] = []
    mounts: list[dict[str, Any]] = [{"name": "gateway", "mountPath": "/var/run/secrets/concordat", "readOnly": True}]
    projected = {"sources": [{"serviceAccountToken": _TOKEN}], "defaultMode": 0o644}
    volumes: list[dict[str, Any]] = [{"name": "gateway", "projected": projected}]
    if canary is not None:
        if canary_image is None:
            raise JobError("screening.canary needs learningImage of the operator's chart")
        command += ["--checked", _CHECKED]
        mounts.append({"name": "checked", "mountPath": _CHECKED, "readOnly": True})
        checking: list[dict[str, Any]] = [
            {"name": "canary", "mountPath": "/canary", "readOnly": True},
            {"name": "tmp", "mountPath": "/hub", "readOnly": True},
            {"name": "checked", "mountPath": _CHECKED},
        ]
        before = [
            Before("prepare", image, [*command, "--until", "updates"], mounts),
            Before("canary", canary_image, _canary("canary"), checking, tmp="scratch"),
            Before("combine", image, [*command, "--until", "candidate"], mounts),
            Before("gate", canary_image, _canary("gate"), checking, tmp="scratch"),
        ]
        volumes += [
            {"name": "canary", "persistentVolumeClaim": {"claimName": canary.claim, "readOnly": True}},
            {"name": "checked", "emptyDir": {"sizeLimit": "64Mi"}},
            {"name": "scratch", "emptyDir": {"sizeLimit": "1Gi"}},
        ]
    return JobTemplate(
        name=aggregation_job_name(round_, run),
        owner=round_,
        labels={
            LABEL_ROUND: round_.metadata.name,
            LABEL_ROUND_UID: round_.metadata.uid,
            LABEL_FEDERATION: round_.spec.federation,
        },
        container=AGGREGATOR,
        image=image,
        command=[*command, "--result", "/dev/termination-log"],
        service_account="concordat-aggregator",
        size=_AGGREGATION_SIZE,
        seconds=_AGGREGATION_SECONDS,
        kept_seconds=_KEPT_SECONDS,
        volumes=volumes,
        mounts=mounts,
        before=before,
    ).manifest()


def aggregation_job_name(round_: FederationRound, run: int = 1) -> str:
    """Name of a round's aggregator Job; `run` counts from 1."""
    name = f"{update_name(round_.metadata.name, round_.metadata.uid)}-aggregate"
    return name if run == 1 else f"{name}-{run}"


def _learning(module: str) -> list[str]:
    folders = ("--base", "/base", "--task", "/task", "--data", "/data", "--out", "/out")
    return ["python", "-m", f"concordat_learning.{module}", *folders]


def _canary(what: str) -> list[str]:
    folders = ("--base", "/hub/work/base", "--updates", f"/hub/work/{what}", "--data", "/canary")
    return ["python", "-m", "concordat_learning.canary", *folders, "--out", f"{_CHECKED}/{what}"]


def _site_volumes(site: Site, federation: str, name: str, base: ArtifactRef) -> dict[str, Any]:
    """Volumes and mounts: of the workspace only what is this Job's, and the data, which cannot be written."""
    part = site.federation(federation)
    if part is None:
        raise JobError(
            f"Site {site.metadata.name} takes no part in federation {federation!r}: it is not in spec.federations"
        )
    workspace, data = {"claimName": site.spec.workspace_claim}, {"claimName": part.data_claim, "readOnly": True}
    return {
        "volumes": [
            {"name": "workspace", "persistentVolumeClaim": workspace},
            {"name": "data", "persistentVolumeClaim": data},
        ],
        "mounts": [
            {"name": "workspace", "mountPath": "/base", "subPath": base_folder(base.digest), "readOnly": True},
            {"name": "workspace", "mountPath": "/task", "subPath": inputs_folder(name), "readOnly": True},
            {"name": "workspace", "mountPath": "/out", "subPath": outputs_folder(name)},
            {"name": "data", "mountPath": "/data", "readOnly": True},
        ],
    }
