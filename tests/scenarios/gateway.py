"""The hub's gateway in a scenario: its own code, without HTTP; the node says what the pods run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from concordat.artifacts import RegistryUnavailable
from concordat.controller import JOB
from concordat_agent.gateway import GrantRefused, StaleNonce
from concordat_gateway.grants import Grants
from concordat_gateway.refusals import Denied, NotYet, Refused, Stale
from concordat_gateway.rights import AGENT, Caller, Pod

if TYPE_CHECKING:
    from tests.scenarios.federation import Federation

_AGENT_IMAGE = "registry.local/operator@sha256:" + "2" * 64


class NodeObserver:
    """What the API server would report of the pods that a scenario only imagines."""

    def __init__(self, federation: Federation) -> None:
        self._federation = federation

    async def pod(self, namespace: str, name: str) -> Mapping[str, Any]:
        """The agent's pod."""
        return _pod(name, _AGENT_IMAGE, {"serviceAccountName": AGENT}, f"pod of {namespace}")

    async def job(self, namespace: str, name: str) -> Mapping[str, Any]:
        """The Job, with what the Job controller would write of it."""
        job = self._federation.cache.get(JOB, namespace, name)
        if job is None:
            raise Denied(f"Job {namespace}/{name} is gone")
        started = self._federation.begun[job["metadata"]["uid"]].strftime("%Y-%m-%dT%H:%M:%SZ")
        return {**job, "status": {**job["status"], "startTime": started}}

    async def pods_of(self, namespace: str, job: str) -> Sequence[Mapping[str, Any]]:
        """Its pod, which ran the Job's image unless the test says otherwise."""
        found = await self.job(namespace, job)
        image = found["spec"]["template"]["spec"]["containers"][0]["image"]
        ran = self._federation.ran.get(namespace, image)
        pod = _pod(f"{job}-x", ran, {}, "trainer")
        pod["metadata"]["labels"] = {"batch.kubernetes.io/controller-uid": found["metadata"]["uid"]}
        return [{**pod, "status": {**pod["status"], "phase": "Succeeded"}}]


class InProcess:
    """The gateway as one site's agent reaches it."""

    def __init__(self, grants: Grants, site: str) -> None:
        self._grants, self._caller = grants, Caller(site, AGENT, Pod("concordat-agent", f"pod of {site}"))

    async def challenge(self, contract_digest: str) -> str:
        """A nonce. Raises what the agent's own client does."""
        try:
            return self._grants.challenge(self._caller, contract_digest)[0]
        except Refused as why:
            raise _as_client(why) from None

    async def grant(self, evidence: bytes, training: bytes | None = None) -> bytes:
        """A grant. Raises what the agent's own client does."""
        try:
            return await self._grants.grant(self._caller, evidence, training)
        except Refused as why:
            raise _as_client(why) from None


def _as_client(why: Refused) -> Exception:
    if isinstance(why, Stale):
        return StaleNonce(str(why))
    return RegistryUnavailable(str(why)) if isinstance(why, NotYet) else GrantRefused(str(why))


def _pod(name: str, image: str, spec: dict[str, Any], uid: str) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "uid": uid},
        "spec": {"containers": [{"name": "main", "image": image}], **spec},
        "status": {"containerStatuses": [{"name": "main", "imageID": image}]},
    }
