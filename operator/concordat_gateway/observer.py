"""What the API server reports of a site's pods and Jobs, to the gateway's own ServiceAccount."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, TypeVar

from concordat.controller import JOB, POD, ApiError, Cluster, Forbidden, NotFound
from concordat_gateway.refusals import Denied, NotYet

T = TypeVar("T")


class ClusterObserver:
    """Asks the API server each time: what a pod runs may change."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    async def pod(self, namespace: str, name: str) -> Mapping[str, Any]:
        """Return a pod. Raises Denied, NotYet."""
        return await _asked(self._cluster.get(POD, namespace, name), f"pod {namespace}/{name}")

    async def job(self, namespace: str, name: str) -> Mapping[str, Any]:
        """Return a Job. Raises Denied, NotYet."""
        return await _asked(self._cluster.get(JOB, namespace, name), f"Job {namespace}/{name}")

    async def pods_of(self, namespace: str, job: str) -> Sequence[Mapping[str, Any]]:
        """Return the pods of a Job, oldest first. Raises Denied, NotYet."""
        return await _asked(self._cluster.list_pods(namespace, job), f"the pods of Job {namespace}/{job}")


async def _asked(request: Awaitable[T], what: str) -> T:
    try:
        return await request
    except NotFound:
        raise Denied(f"{what} is gone, as the API server says") from None
    except Forbidden:
        # A release that is being upgraded has not granted it yet.
        raise NotYet(f"the site does not let the gateway look at {what}: upgrade its chart") from None
    except ApiError as error:
        raise NotYet(f"the API server does not say what {what} is: {error}") from None
