"""What evidence is worth: pure functions of what a site shows and what the API server reports of its pods."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

from concordat.jobs import outcome, own_pods
from concordat.lineage.grants import CLOCKS
from concordat.statements.grant import Grant
from concordat_gateway.refusals import Denied, NotYet
from concordat_gateway.rights import AGENT

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}\Z")
_MOST_CONTAINERS = 16
_OF_THE_HOST = ("hostNetwork", "hostPID", "hostIPC")


def agent_pod(pod: Mapping[str, Any], uid: str, allowed: Collection[str] | None) -> dict[str, Any]:
    """Return what is found of the pod that the agent's token is bound to. Raises Denied, NotYet.

    `allowed` are digests of the images that it may run; None: any.
    """
    name, spec = pod["metadata"]["name"], pod["spec"]
    if pod["metadata"]["uid"] != uid:
        raise Denied(f"pod {name} is another one than the token was made for")
    if spec.get("serviceAccountName") != AGENT:
        raise Denied(f"pod {name} runs as ServiceAccount {spec.get('serviceAccountName')}, expected {AGENT}")
    _plain(pod)
    images = _images(pod)
    strange = sorted(set(images) - set(allowed)) if allowed is not None else []
    if strange:
        raise Denied(f"pod {name} runs {strange[0]}, which is not among agentImages of the site's Membership")
    return {"pod": name, "uid": uid, "images": images}


def trainer_image(
    job: Mapping[str, Any], pods: Sequence[Mapping[str, Any]], job_uid: str, image: str, training: Grant
) -> dict[str, Any]:
    """Return what is found of the pod that trained. Raises Denied, NotYet.

    `image` is the contract's, by digest; `training` the grant by which the Job was let run.
    """
    name = job["metadata"]["name"]
    if job["metadata"]["uid"] != job_uid:
        raise Denied(f"Job {name} is another one than the update was trained in")
    ended = outcome(job)
    if ended is None or ended.completed is None:
        raise NotYet(f"Job {name} has not ended well, as the API server says")
    started = (job.get("status") or {}).get("startTime")
    begun = datetime.fromisoformat(started) if started else None
    if begun is None or not training.not_before - CLOCKS <= begun <= training.not_after + CLOCKS:
        raise Denied(f"Job {name} began at {started}, its grant to train is from {training.not_before:%H:%M:%SZ} on")
    own = [pod for pod in own_pods(job, pods) if (pod.get("status") or {}).get("phase") == "Succeeded"]
    if not own:
        raise Denied(f"no pod of Job {name} that ended well is left, so nobody can say what it ran")
    expected = image.rpartition("@")[2]
    for pod in own:
        _plain(pod)
        if other := sorted(set(_images(pod)) - {expected}):
            raise Denied(f"pod {pod['metadata']['name']} ran {other[0]}, the contract's image is {expected}")
    return {"pod": own[-1]["metadata"]["name"], "image": expected}


def _plain(pod: Mapping[str, Any]) -> None:
    """Refuse a pod into which somebody else can reach, or that can reach out."""
    name, spec, status = pod["metadata"]["name"], pod["spec"], pod.get("status") or {}
    if spec.get("ephemeralContainers") or status.get("ephemeralContainerStatuses"):
        raise Denied(f"pod {name} has an ephemeral container: somebody debugs it")
    if shared := [field for field in _OF_THE_HOST if spec.get(field)]:
        raise Denied(f"pod {name} has {shared[0]}: it shares a namespace of its node")
    if volumes := [volume["name"] for volume in spec.get("volumes") or [] if "hostPath" in volume]:
        raise Denied(f"pod {name} mounts a folder of its node, as volume {volumes[0]}")
    for container in _containers(spec):
        if (container.get("securityContext") or {}).get("privileged"):
            raise Denied(f"pod {name} has a privileged container, {container['name']}")


def _containers(spec: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [*(spec.get("initContainers") or []), *(spec.get("containers") or [])]


def _images(pod: Mapping[str, Any]) -> list[str]:
    """Return the digest of each container's image, as the kubelet reports what it runs. Raises Denied, NotYet."""
    name, status = pod["metadata"]["name"], pod.get("status") or {}
    listed = [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]
    reported = {entry["name"]: entry.get("imageID") or "" for entry in listed}
    containers = _containers(pod["spec"])
    if len(containers) > _MOST_CONTAINERS:
        raise Denied(f"pod {name} has {len(containers)} containers, at most {_MOST_CONTAINERS} are looked at")
    found: set[str] = set()
    for container in containers:
        image_id = reported.get(container["name"], "")
        if not image_id:
            raise NotYet(f"the kubelet does not report yet what container {container['name']} of pod {name} runs")
        digest = _DIGEST.search(image_id)
        if digest is None:
            raise Denied(f"container {container['name']} of pod {name} runs {image_id[:200]!r}, which names no digest")
        found.add(digest[0])
    return sorted(found)
