"""kopf as the watcher: it lists and watches, we do the rest.

Only `on.event` handlers: they see every change in order per object, write nothing (no annotation, no
finalizer) and start up in linear time. What kopf does not tell - objects deleted while a watch was down - the
host's resync finds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import kopf

from concordat.controller.client import Cluster
from concordat.controller.kinds import GVK

OnEvent = Callable[[str | None, Mapping[str, Any]], None]
"""Called with ADDED, MODIFIED, DELETED, or None for an object of a list, and the object."""


async def watch(
    cluster: Cluster,
    kinds: Iterable[GVK],
    on_event: OnEvent,
    *,
    namespaces: Sequence[str] | None,
    selectors: Mapping[GVK, str],
    started: Callable[[], object] = lambda: None,
) -> None:
    """Watch the kinds until cancelled. Ends only with an exception: the process should then exit and be restarted.

    `selectors` are label selectors evaluated by the API server. `started` is called once kopf's tasks run,
    after kopf has taken over the signal handlers of the event loop.
    """
    registry = kopf.OperatorRegistry()
    for kind in kinds:
        kopf.on.event(kind.group, kind.version, kind.resource, registry=registry)(_handler(on_event))
    kopf.on.login(registry=registry)(_login(cluster))
    stop = asyncio.Event()
    tasks = await kopf.spawn_tasks(
        registry=registry,
        settings=_settings(selectors),
        standalone=True,
        # kopf would ask who runs it, which fails for a user id without a name, as in our images.
        identity="concordat",
        clusterwide=namespaces is None,
        namespaces=list(namespaces or ()),
        stop_flag=stop,
    )
    # kopf.operator() would, when it ends, cancel every task of the event loop that is younger than itself.
    try:
        started()
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
        raise RuntimeError("kopf stopped watching without saying why")
    finally:
        stop.set()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _handler(on_event: OnEvent) -> Callable[..., Any]:
    async def handle(event: Mapping[str, Any], **_: Any) -> None:
        if event["type"] != "BOOKMARK":
            on_event(event["type"], event["object"])

    return handle


def _login(cluster: Cluster) -> Callable[..., Any]:
    async def login(**_: Any) -> kopf.ConnectionInfo:
        connection = await cluster.connection()
        return kopf.ConnectionInfo(
            server=connection.server,
            ca_path=connection.ca_path,
            certificate_path=connection.certificate_path,
            private_key_path=connection.private_key_path,
            token=connection.token,
            insecure=connection.insecure,
        )

    return login


class _NoDiffs(kopf.AnnotationsDiffBaseStorage):  # type: ignore[misc]  # kopf is not typed for us
    """Our handlers are told events, not differences: kopf would copy every object to find those."""

    def build(self, **_: Any) -> kopf.BodyEssence:
        return kopf.BodyEssence({})


class _NoProgress(kopf.AnnotationsProgressStorage):  # type: ignore[misc]
    """Handlers of events have no progress to keep, nor to remove from a copy."""

    def clear(self, *, essence: kopf.BodyEssence) -> kopf.BodyEssence:
        return essence


def _settings(selectors: Mapping[GVK, str]) -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    for kind, selector in selectors.items():
        settings.watching.label_selectors[kind.group, kind.version, kind.resource] = selector
    settings.watching.chunk_size = 500
    settings.watching.server_timeout, settings.watching.client_timeout = 300, 330
    settings.watching.reconnect_backoff = 1.0
    settings.networking.connect_timeout, settings.networking.request_timeout = 10, 30
    # An API server that is away for ten minutes ends the watch, and the process; kopf's default is one minute.
    settings.networking.error_backoffs = (1, 1, 2, 3, 5, 8, 13, 21, *[30] * 20)
    settings.posting.enabled = False
    settings.scanning.disabled = True
    settings.peering.standalone = True
    settings.persistence.finalizer = "concordat.dev/never-used"
    settings.persistence.diffbase_storage, settings.persistence.progress_storage = _NoDiffs(), _NoProgress()
    # kopf's default is to SIGKILL the thread ten minutes after it was told to stop, even if it has stopped.
    settings.process.ultimate_exiting_timeout = None
    return settings
