"""The Kubernetes API as Concordat uses it: plain objects in, plain objects out, typed errors.

Built on the official `kubernetes.aio` transport (kubeconfig, in-cluster credentials and their refresh);
requests are made by path, because server-side apply of custom resources needs no generated classes.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote
from urllib.request import getproxies

import aiohttp
from kubernetes.aio import config as kube_config
from kubernetes.aio.client import ApiClient, Configuration
from kubernetes.config import ConfigException

from concordat.controller.errors import AlreadyExists, ApiError, NotFound, Unavailable, from_response
from concordat.controller.kinds import EVENT, JOB, LEASE, POD, TOKEN_REVIEW, KindLike, gvk, gvk_of
from concordat.controller.limiter import TokenBucket

APPLY = "application/apply-patch+yaml"
MERGE = "application/merge-patch+json"
PAGE = 500
_PAGES = {JOB: 50}
"""Anybody may make Jobs as large as the API server takes them, and a page of them must fit into memory."""

Objects = list[dict[str, Any]]


_BOUND_TO = "authentication.kubernetes.io"
"""What a token is bound to stands in the user's extra fields under names of this prefix."""


@dataclass(frozen=True)
class TokenUser:
    """Whose token it is, and the pod that it is bound to, if it is bound to one."""

    name: str
    pod: str | None = None
    pod_uid: str | None = None


@dataclass(frozen=True)
class Connection:
    """Where the API server is and how to identify to it; for other clients of the same process."""

    server: str
    ca_path: str | None
    certificate_path: str | None
    private_key_path: str | None
    token: str | None
    insecure: bool


class Cluster:
    """A connection to one API server, as an async context manager.

    Uses `kubeconfig` if given, else $KUBECONFIG, else the pod's ServiceAccount, else ~/.kube/config. Every
    method raises a subclass of `ApiError`: `NotFound`, `Conflict`, `AlreadyExists`, `Forbidden`, `Invalid`,
    or `Unavailable`, which is `Transient`.

    Writes share a token bucket of `qps` per second and `burst`, first come first served, so that a pass of many writes
    delays another's only by those it has in flight. Events have a bucket of their own, of a quarter of that; Leases
    have none, since a Lease written late is a Lease lost.
    """

    def __init__(self, kubeconfig: Path | str | None = None, *, qps: float = 20, burst: int = 50) -> None:
        self._kubeconfig = str(kubeconfig) if kubeconfig else None
        self._writes = TokenBucket(qps, burst)
        self._events = TokenBucket(qps / 4, burst)
        self._client: ApiClient | None = None
        self.on_write: Callable[[dict[str, Any]], None] | None = None
        """Called with every object a write returned, so that the cache knows it before the watch tells."""

    async def __aenter__(self) -> Self:
        configuration = Configuration()
        try:
            await self._load(configuration)
        except ConfigException as error:
            raise Unavailable(f"no usable cluster credentials: {error}; set KUBECONFIG or run in a pod") from error
        # With proxies from the environment aiohttp reads ~/.netrc too, at each request: a tenth of the operator's time.
        configuration.client_session_kwargs = {"trust_env": bool(getproxies())}
        self._client = ApiClient(configuration)
        self._client.user_agent = "concordat"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def _load(self, configuration: Any) -> None:
        path = self._kubeconfig or os.environ.get("KUBECONFIG")
        if path is None and "KUBERNETES_SERVICE_HOST" in os.environ:
            kube_config.load_incluster_config(client_configuration=configuration)
            return
        await kube_config.load_kube_config(config_file=path, client_configuration=configuration, persist_config=False)

    async def connection(self) -> Connection:
        """Return the credentials in use, refreshed."""
        configuration = self._api.configuration
        header = await configuration.get_api_key_with_prefix("BearerToken") or ""
        return Connection(
            server=configuration.host,
            ca_path=configuration.ssl_ca_cert,
            certificate_path=configuration.cert_file,
            private_key_path=configuration.key_file,
            token=header.partition(" ")[2] or None,
            insecure=not configuration.verify_ssl,
        )

    # ---- reads

    async def get(self, kind: KindLike, namespace: str, name: str) -> dict[str, Any]:
        """Return one object, read from the API server."""
        return await self._request("GET", gvk(kind).path(namespace, name))

    async def list(
        self, kind: KindLike, namespace: str | None = None, labels: Mapping[str, str] | str | None = None
    ) -> Objects:
        """Return all objects of a kind, in one namespace or in all; `labels` is a mapping or a label selector."""
        return (await self.list_at(kind, namespace, labels))[0]

    async def list_at(
        self, kind: KindLike, namespace: str | None = None, labels: Mapping[str, str] | str | None = None
    ) -> tuple[Objects, int]:
        """Return all objects of a kind, and the resourceVersion of that snapshot."""
        target = gvk(kind)
        selector = labels if isinstance(labels, str) else ",".join(f"{k}={v}" for k, v in (labels or {}).items())
        query = {"limit": str(_PAGES.get(target, PAGE))} | ({"labelSelector": selector} if selector else {})
        items: Objects = []
        token = ""
        while True:
            page = await self._request("GET", target.path(namespace), query | ({"continue": token} if token else {}))
            # Items of a list carry no type of their own.
            items += [{**item, "apiVersion": target.api_version, "kind": target.kind} for item in page["items"]]
            token = page["metadata"].get("continue", "")
            if not token:
                return items, int(page["metadata"]["resourceVersion"])

    async def list_pods(self, namespace: str, job: str) -> Objects:
        """Return the pods of a Job, oldest first; for telling why it failed."""
        pods = await self.list(POD, namespace, {"batch.kubernetes.io/job-name": job})
        return sorted(pods, key=lambda pod: (pod["metadata"]["creationTimestamp"], pod["metadata"]["name"]))

    # ---- writes

    async def create(self, obj: dict[str, Any]) -> dict[str, Any]:
        """Create an object. Raises AlreadyExists: get it then, and compare the owner."""
        target = gvk_of(obj)
        return await self._write("POST", target.path(_namespace(obj)), obj)

    async def replace(self, obj: dict[str, Any]) -> dict[str, Any]:
        """Replace an object; with metadata.resourceVersion only if unchanged since then, else Conflict."""
        target = gvk_of(obj)
        return await self._write("PUT", target.path(_namespace(obj), obj["metadata"]["name"]), obj)

    async def apply(self, obj: dict[str, Any], manager: str) -> dict[str, Any]:
        """Apply server-side, forced: afterwards `manager` owns exactly the fields of `obj`."""
        target = gvk_of(obj)
        return await self._apply(target.path(_namespace(obj), obj["metadata"]["name"]), obj, manager)

    async def apply_status(
        self,
        kind: KindLike,
        namespace: str,
        name: str,
        status: dict[str, Any],
        manager: str,
        *,
        resource_version: str = "",
    ) -> dict[str, Any]:
        """Apply the status server-side, forced. Raises NotFound when the object is gone.

        With `resource_version` only if the object is still at it, else Conflict. There is no such precondition on
        the uid: of a custom resource's status the API server ignores it.
        """
        target = gvk(kind)
        metadata = {"name": name} | ({"namespace": namespace} if target.namespaced else {})
        metadata |= {"resourceVersion": resource_version} if resource_version else {}
        body = {"apiVersion": target.api_version, "kind": target.kind, "metadata": metadata, "status": status}
        return await self._apply(target.path(namespace, name, "status"), body, manager)

    async def set_finalizers(
        self, kind: KindLike, namespace: str, name: str, finalizers: Sequence[str], resource_version: str
    ) -> dict[str, Any]:
        """Replace the finalizers if the object is still at `resource_version`, else Conflict."""
        body = {"metadata": {"finalizers": [*finalizers], "resourceVersion": resource_version}}
        return await self._write("PATCH", gvk(kind).path(namespace, name), body, content_type=MERGE)

    async def resume(self, job: Mapping[str, Any], manager: str) -> dict[str, Any]:
        """Let a suspended Job run, if it is still the very object at the very version that was looked at.

        Raises Conflict if it is not, NotFound.
        """
        seen = job["metadata"]
        metadata = {"uid": seen["uid"], "resourceVersion": seen["resourceVersion"]}
        body = {"metadata": metadata, "spec": {"suspend": False}}
        query = {"fieldManager": manager}
        return await self._write("PATCH", JOB.path(seen["namespace"], seen["name"]), body, query, MERGE)

    async def delete(self, kind: KindLike, namespace: str, name: str, uid: str | None = None) -> bool:
        """Delete in the background; with `uid` only that very object, else Conflict. False: it was gone."""
        body: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": "Background",
        }
        if uid is not None:
            body["preconditions"] = {"uid": uid}
        try:
            await self._writes.acquire()
            await self._request("DELETE", gvk(kind).path(namespace, name), body=body)
        except NotFound:
            return False
        return True

    async def review_token(self, token: str, audience: str) -> TokenUser | None:
        """Return whose token for that audience this is, by the API server; None if it is none."""
        spec = {"token": token, "audiences": [audience]}
        body = {"apiVersion": TOKEN_REVIEW.api_version, "kind": TOKEN_REVIEW.kind, "spec": spec}
        status = (await self._request("POST", TOKEN_REVIEW.path(), body=body)).get("status") or {}
        # A server that knows no audiences names none, and has not looked whom the token is for.
        if not status.get("authenticated") or audience not in (status.get("audiences") or ()):
            return None
        user = status.get("user") or {}
        extra = user.get("extra") or {}
        name, pod, uid = user.get("username"), *(extra.get(f"{_BOUND_TO}/{what}") for what in ("pod-name", "pod-uid"))
        return TokenUser(str(name), pod[0] if pod else None, uid[0] if uid else None) if name else None

    async def create_event(
        self,
        regarding: dict[str, Any],
        *,
        name: str,
        reason: str,
        note: str,
        warning: bool,
        controller: str,
        at: datetime,
    ) -> None:
        """Post an events.k8s.io/v1 Event about an object; an Event of that `name` is left alone.

        Raises Unavailable when more Events are posted than their bucket allows: nothing waits for an Event.
        """
        metadata = regarding["metadata"]
        namespace = metadata.get("namespace") or "default"
        event = {
            "apiVersion": EVENT.api_version,
            "kind": EVENT.kind,
            "metadata": {"name": name, "namespace": namespace},
            "eventTime": at.isoformat(timespec="microseconds").replace("+00:00", "Z"),
            "type": "Warning" if warning else "Normal",
            "reason": reason,
            "note": note[:1024],
            "action": reason,
            "reportingController": controller,
            "reportingInstance": os.environ.get("POD_NAME", controller),
            "regarding": {
                "apiVersion": regarding["apiVersion"],
                "kind": regarding["kind"],
                "namespace": metadata.get("namespace", ""),
                "name": metadata["name"],
                "uid": metadata.get("uid", ""),
                "resourceVersion": metadata.get("resourceVersion", ""),
            },
        }
        if not self._events.take(asyncio.get_running_loop().time()):
            raise Unavailable(f"POST {EVENT.path(namespace)}: too many Events at once")
        with contextlib.suppress(AlreadyExists):
            await self._request("POST", EVENT.path(namespace), body=event)

    # ---- transport

    @property
    def _api(self) -> Any:
        if self._client is None:
            raise RuntimeError("Cluster is not open: use it as `async with Cluster() as cluster`")
        return self._client

    async def _apply(self, path: str, obj: dict[str, Any], manager: str) -> dict[str, Any]:
        query = {"fieldManager": manager, "force": "true"}
        return await self._write("PATCH", path, obj, query, APPLY)

    async def _write(
        self,
        method: str,
        path: str,
        body: dict[str, Any],
        query: Mapping[str, str] | None = None,
        content_type: str = "application/json",
    ) -> dict[str, Any]:
        if body.get("kind") != LEASE.kind:
            await self._writes.acquire()
        written = await self._request(method, path, query, body, content_type)
        if self.on_write is not None:
            self.on_write(written)
        return written

    async def _request(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: dict[str, Any] | None = None,
        content_type: str = "application/json",
    ) -> dict[str, Any]:
        request = f"{method} {path}"
        call = await self._api.param_serialize(
            method,
            quote(path),
            query_params=list((query or {}).items()),
            header_params={"Accept": "application/json", "Content-Type": content_type},
            body=body,
            auth_settings=["BearerToken"],
        )
        try:
            response = await self._api.call_api(
                *call, _request_timeout=aiohttp.ClientTimeout(total=30, sock_connect=10)
            )
            data = await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Unavailable(f"{request}: the API server cannot be reached: {error!r}") from error
        content = _decode(request, data)
        if 200 <= response.status < 300:
            return content
        raise from_response(
            request,
            response.status,
            str(content.get("reason", response.reason)),
            str(content.get("message", "")),
            _seconds(response.getheader("Retry-After")),
        )


def _namespace(obj: dict[str, Any]) -> str | None:
    value: str | None = obj["metadata"].get("namespace")
    return value


def _seconds(header: str | None) -> float | None:
    return float(header) if header is not None and header.isdigit() else None


def _decode(request: str, data: bytes) -> dict[str, Any]:
    try:
        content = json.loads(data) if data else {}
    except ValueError:
        # A proxy or an overloaded server may answer in plain text.
        return {"message": data[:200].decode(errors="replace")}
    if not isinstance(content, dict):
        raise ApiError(f"{request}: the answer is not a JSON object")
    return content
