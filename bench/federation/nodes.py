"""The Job controller and the nodes: each Job runs for its own time, and leaves what its image would leave."""

from __future__ import annotations

import asyncio
import json
import random
import shutil
import sys
import time
import zlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from concordat.api.round import Factor
from concordat.controller import JOB, POD, Cache, Cluster, Conflict, NotFound, Unavailable
from concordat.controller.client import MERGE
from concordat.controller.kinds import KindLike
from concordat.jobs import is_suspended, outcome
from concordat.protocol import artifact_types as types
from concordat.protocol.contract import Contract
from concordat.tensors import Tensors, read_tensors, write_tensors
from concordat_agent.workspace import Workspace

A, B = "vit.layer.0.lora_A.weight", "vit.layer.0.lora_B.weight"
PARENT: Tensors = {A: np.eye(4, 64, dtype=np.float32), B: np.zeros((64, 4), np.float32)}
CONFIG = b'{"r": 4, "lora_alpha": 4}'
_RETRIES = 6
_TRANSIENT = 75


@dataclass(frozen=True)
class Times:
    """Own times of the Jobs, in seconds: at least and at most."""

    train: tuple[float, float] = (10.0, 60.0)
    evaluate: tuple[float, float] = (2.0, 10.0)


@dataclass
class Ran:
    """A Job that ran."""

    namespace: str
    name: str
    kind: str
    started: float
    ended: float | None = None
    own: float = 0.0
    """Seconds that it worked by itself; the aggregator's are Concordat's and not counted."""


@dataclass
class Nodes:
    """Plays the Jobs of the cache. `ran` is in the order of their starts, with the loop's monotonic times."""

    cluster: Cluster
    cache: Cache
    workspaces: dict[str, Workspace]
    folder: Path
    registry_url: str
    times: Times
    random: random.Random
    ran: list[Ran] = field(default_factory=list)
    garbage: set[str] = field(default_factory=set)
    """Sites whose training leaves files that are no adapter."""
    _playing: dict[str, asyncio.Task[None]] = field(default_factory=dict)

    def notice(self, kind: KindLike, old: Any, new: Any) -> None:
        """Listen to the cache."""
        if kind is not JOB:
            return
        if new is None:
            gone = self._playing.pop(old["metadata"]["uid"], None)
            if gone is not None:
                gone.cancel()
            return
        uid, may_run = new["metadata"]["uid"], outcome(new) is None and not is_suspended(new)
        if uid not in self._playing and may_run and "deletionTimestamp" not in new["metadata"]:
            self._playing[uid] = asyncio.get_running_loop().create_task(self._play(new))

    async def close(self) -> None:
        """Stop all Jobs."""
        tasks = list(self._playing.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _play(self, job: dict[str, Any]) -> None:
        container = job["spec"]["template"]["spec"]["containers"][0]
        key = (job["metadata"]["namespace"], job["metadata"]["name"])
        ran = Ran(*key, kind=container["name"], started=time.monotonic())
        self.ran.append(ran)
        started = _now()
        failure: str | None = None
        try:
            await self._status(job, {"startTime": started, "active": 1, "ready": 1})
            if container["name"] == "aggregator":
                failure = await self._aggregate(job, container["command"])
            else:
                train = container["name"] == "trainer"
                ran.own = self.random.uniform(*(self.times.train if train else self.times.evaluate))
                await asyncio.sleep(ran.own)
                await asyncio.to_thread(self._train if train else self._evaluate, key)
            await self._status(job, _failed(started, failure) if failure else _complete(started))
        except (NotFound, Conflict):
            pass  # Deleted while it ran.
        finally:
            ran.ended = time.monotonic()

    async def _status(self, job: dict[str, Any], status: dict[str, Any]) -> None:
        path = JOB.path(job["metadata"]["namespace"], job["metadata"]["name"], "status")
        body = {"metadata": {"uid": job["metadata"]["uid"]}, "status": status}
        await _persistently(lambda: self.cluster._write("PATCH", path, body, content_type=MERGE))

    def _train(self, key: tuple[str, str]) -> None:
        # Different for every site, as honest training is, beside something in common.
        folder = self.workspaces[key[0]].inputs(key[1])
        parent = read_tensors((folder / "parent" / types.ADAPTER_FILE).read_bytes())
        contract = Contract.from_bytes((folder / Contract.FILE).read_bytes())
        trained = A if contract.recipe.train_factor is Factor.A else B
        own = np.random.default_rng(zlib.crc32("/".join(key).encode())).normal(scale=0.02, size=parent[trained].shape)
        candidate = write_tensors({**parent, trained: parent[trained] + (own + 0.02).astype(np.float32)})
        if key[0] in self.garbage:
            candidate = b"garbage" * 9
        evidence = {
            "schema": "concordat.dev/training-evidence/v1",
            **{"steps": 100, "examples": 200, "validationExamples": 50},
            **{"parentPpm": 800_000, "candidatePpm": 850_000, "isolation": "verified"},
        }
        self._leave(key, {types.ADAPTER_FILE: candidate, "evidence.json": json.dumps(evidence).encode()})

    def _evaluate(self, key: tuple[str, str]) -> None:
        task = json.loads((self.workspaces[key[0]].inputs(key[1]) / "task.json").read_bytes())
        found = {
            model: {"ppm": ppm, "lowPpm": ppm - 10_000, "highPpm": ppm + 10_000}
            for model in task["models"]
            for ppm in [900_000 if model == "candidate" else 800_000]
        }
        evidence = {
            "schema": "concordat.dev/evaluation-evidence/v1",
            **{"examples": 100, "models": found, "isolation": "verified"},
        }
        self._leave(key, {"evaluation.json": json.dumps(evidence).encode()})

    def _leave(self, key: tuple[str, str], files: dict[str, bytes]) -> None:
        result = self.workspaces[key[0]].inputs(key[1]).parent / "out" / "result"
        result.mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            (result / name).write_bytes(data)

    async def _aggregate(self, job: dict[str, Any], command: list[str]) -> str | None:
        """Run the real aggregator, and leave its pod with the termination message; returns why it failed."""
        work = self.folder / job["metadata"]["uid"]
        work.mkdir(parents=True, exist_ok=True)
        said = work / "termination-log"
        options = dict(zip(command[3::2], command[4::2], strict=True))
        options |= {"--registry": self.registry_url, "--work": str(work / "work"), "--result": str(said)}
        words = [word for pair in options.items() for word in pair]
        code = _TRANSIENT
        for _ in range(_RETRIES):
            with (self.folder / "aggregator.log").open("ab") as log:
                process = await asyncio.create_subprocess_exec(
                    sys.executable, "-m", command[2], *words, stdout=log, stderr=log
                )
                try:
                    code = await process.wait()
                finally:
                    if process.returncode is None:
                        process.kill()
            if code != _TRANSIENT:
                break
        if code == 0:
            await self._leave_pod(job, said.read_text())
        shutil.rmtree(work)
        return None if code == 0 else f"exit code {code}"

    async def _leave_pod(self, job: dict[str, Any], message: str) -> None:
        metadata, container = job["metadata"], job["spec"]["template"]["spec"]["containers"][0]
        name = f"{metadata['name']}-{metadata['uid'][:5]}"
        owner = {"apiVersion": "batch/v1", "kind": "Job", "name": metadata["name"], "uid": metadata["uid"]}
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": name,
                "namespace": metadata["namespace"],
                "labels": {
                    "batch.kubernetes.io/job-name": metadata["name"],
                    "batch.kubernetes.io/controller-uid": metadata["uid"],
                },
                "ownerReferences": [{**owner, "controller": True}],
            },
            "spec": {
                "containers": [{"name": container["name"], "image": container["image"]}],
                **{"restartPolicy": "Never", "automountServiceAccountToken": False},
            },
        }
        ended = {"exitCode": 0, "message": message, "reason": "Completed"}
        state = {"name": container["name"], "image": container["image"], "imageID": "", "ready": False}
        status = {
            "phase": "Succeeded",
            "containerStatuses": [{**state, "restartCount": 0, "state": {"terminated": ended}}],
        }
        await _persistently(lambda: self.cluster.apply(pod, "bench-nodes"))
        path = POD.path(metadata["namespace"], name, "status")
        await _persistently(lambda: self.cluster._write("PATCH", path, {"status": status}, content_type=MERGE))


async def _persistently(request: Callable[[], Awaitable[Any]]) -> Any:
    """Repeat a request while the API server is away."""
    while True:
        try:
            return await request()
        except Unavailable:
            await asyncio.sleep(0.5)


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _condition(type_: str, **more: str) -> dict[str, str]:
    return {"type": type_, "status": "True", "lastTransitionTime": _now(), "lastProbeTime": _now(), **more}


def _complete(started: str) -> dict[str, Any]:
    conditions = [_condition("SuccessCriteriaMet"), _condition("Complete")]
    return {
        **{"startTime": started, "completionTime": _now(), "succeeded": 1, "active": 0, "ready": 0},
        "conditions": conditions,
    }


def _failed(started: str, why: str) -> dict[str, Any]:
    reason = {"reason": "PodFailurePolicy", "message": why}
    conditions = [_condition("FailureTarget", **reason), _condition("Failed", **reason)]
    return {"startTime": started, "failed": 1, "active": 0, "ready": 0, "conditions": conditions}
