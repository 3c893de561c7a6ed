"""What the node does in a scenario: it runs the Jobs that are there, and leaves what their pods would leave."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from concordat.api import Update
from concordat.api.round import Factor
from concordat.api.types import ArtifactRef
from concordat.artifacts import RegistryStore, RegistryUnavailable
from concordat.controller import JOB, Cluster, Controller, FixedClock
from concordat.jobs import is_suspended
from concordat.protocol import artifact_types as types
from concordat.protocol.contract import Contract
from concordat.tensors import Tensors, read_tensors, write_tensors
from concordat_agent.workspace import Workspace
from concordat_aggregator.job import Until
from concordat_aggregator.job import run as aggregate
from tests.scenarios.faults import Flickering, NodeCache

IMAGE = "registry.local/learning@sha256:" + "1" * 64
A, B = "vit.layer.0.lora_A.weight", "vit.layer.0.lora_B.weight"
PARENT: Tensors = {A: np.eye(2, 4, dtype=np.float32), B: np.zeros((4, 2), np.float32)}
Key = tuple[str, str]


def request_of(job: dict[str, Any]) -> ArtifactRef:
    """Return the request that an aggregator Job is started with."""
    words = job["spec"]["template"]["spec"]["containers"][0]["command"]
    repository, _, digest = words[words.index("--request") + 1].partition("@")
    return ArtifactRef(repository=repository, digest=digest)


class Node:
    """The Jobs of a federation and how they end."""

    hub_space: str
    prefix: str

    def __init__(self, admin: Cluster, registry: Flickering, folder: Path) -> None:
        self.admin, self.registry, self.folder = admin, registry, folder
        self.clock = FixedClock(datetime.now(UTC).replace(microsecond=0))
        self.cache = NodeCache()
        self.agents: dict[str, list[Controller]] = {}
        self.workspaces: dict[str, Workspace] = {}
        self.outcomes: dict[str, str] = {}
        """Site to what its training Job ends with: a reason of failure, instead of a candidate."""
        self.quality: dict[str, int] = {}
        """Namespace to the candidate's accuracy there, in parts per million; 900000 where nothing is said."""
        self.ran: dict[str, str] = {}
        """Namespace of a site to the image that its training pod ran, where that is not the Job's."""
        self.canary_loss: dict[str, str] = {}
        """Namespace of a site to what its update does to the loss on the hub's canary data."""
        self.launched: list[Key] = []
        self.begun: dict[str, datetime] = {}
        """When a Job began, by its uid."""
        self.held: set[str] = set()
        """Namespaces whose Jobs do not end."""

    def registry_of(self, party: str) -> RegistryStore:
        """Return the registry as a party reaches it: the hub, its aggregator, or a site by its short name."""
        return self.registry

    async def end_jobs(self) -> None:
        """What the node does: run the Jobs that are there."""
        for job in self.cache.list(JOB):
            metadata = job["metadata"]
            if metadata["uid"] in self.cache.ended:
                continue
            key = (metadata["namespace"], metadata["name"])
            if is_suspended(job):
                continue
            self.begun.setdefault(metadata["uid"], self.clock.now())
            if key[0] in self.held:
                continue
            failure = None
            if key[0] == self.hub_space:
                try:
                    await self._aggregate(job)
                except RegistryUnavailable:
                    continue  # Exit 75: the Job starts the next pod.
            elif metadata["name"] in {u.metadata.name for u in self.cache.list(Update, key[0])}:
                failure = self.outcomes.get(key[0])
                self._train(key)
            else:
                self._evaluate(key)
            self.launched.append(key)
            at = self.clock.now().strftime("%Y-%m-%dT%H:%M:%SZ")
            ended = {"type": "Failed" if failure else "Complete", "status": "True"}
            more = {"reason": failure} if failure else {}
            status: dict[str, Any] = {"conditions": [{**ended, **more}]}
            self.cache.ended[metadata["uid"]] = status if failure else {**status, "completionTime": at}

    def _train(self, key: Key) -> None:
        # Different for every site and round, as honest training is: what points the same way counts as a copy, and what
        # goes where the last round went as a replay. Beside something in common, which they all learn.
        who = f"{key[0].removeprefix(self.prefix)} {key[1].rpartition('-')[0]}"
        own = np.random.default_rng(list(who.encode())).normal(scale=0.2, size=8) + 0.2
        evidence = {
            "schema": "concordat.dev/training-evidence/v1",
            "steps": 100,
            "examples": 200,
            "validationExamples": 50,
            "parentPpm": 800_000,
            "candidatePpm": 850_000,
            "isolation": "verified",
        }
        folder = self.workspaces[key[0]].inputs(key[1])
        parent = read_tensors((folder / "parent" / types.ADAPTER_FILE).read_bytes())
        contract = Contract.from_bytes((folder / Contract.FILE).read_bytes())
        trained = A if contract.recipe.train_factor is Factor.A else B
        change = own.astype(np.float32).reshape(parent[trained].shape)
        candidate = write_tensors({**parent, trained: parent[trained] + change})
        self._leave(key, {types.ADAPTER_FILE: candidate, "evidence.json": json.dumps(evidence).encode()})

    def _evaluate(self, key: Key) -> None:
        task = json.loads((self.workspaces[key[0]].inputs(key[1]) / "task.json").read_bytes())

        def quality(ppm: int) -> dict[str, int]:
            return {"ppm": ppm, "lowPpm": ppm - 10_000, "highPpm": ppm + 10_000}

        found = self.quality.get(key[0], 900_000)
        models = {model: quality(found if model == "candidate" else 800_000) for model in task["models"]}
        evidence = {
            "schema": "concordat.dev/evaluation-evidence/v1",
            "examples": 100,
            "models": models,
            "isolation": "verified",
        }
        self._leave(key, {"evaluation.json": json.dumps(evidence).encode()})

    def _leave(self, key: Key, files: dict[str, bytes]) -> None:
        result = self.workspaces[key[0]].inputs(key[1]).parent / "out" / "result"
        result.mkdir(parents=True)
        for name, data in files.items():
            (result / name).write_bytes(data)

    def _check_canary(self, updates: Path, out: Path) -> None:
        """The learning image's part: measure what the aggregator laid out."""
        sites = [folder.name for folder in (updates / "sites").iterdir()]
        found = {
            site: {"lossChange": self.canary_loss.get(site, "-0.1"), "triggerGainPpm": 0, "trigger": "x"}
            for site in sites
        }
        report = {"schema": "concordat.dev/canary-report/v1", "examples": 1, "parentLoss": "1", "sites": found}
        out.mkdir(parents=True, exist_ok=True)
        (out / "canary.json").write_text(json.dumps(report))

    async def _aggregate(self, job: dict[str, Any]) -> None:
        """Run the real aggregator, and leave its pod with the termination message."""
        work, registry = self.folder / "work" / job["metadata"]["uid"], self.registry_of("aggregator")
        checked = work / "checked"
        if job["spec"]["template"]["spec"].get("initContainers"):
            await aggregate(registry, request_of(job), work, Until.UPDATES)
            self._check_canary(work / "canary", checked / "canary")
            await aggregate(registry, request_of(job), work, Until.CANDIDATE, checked=checked)
            self._check_canary(work / "gate", checked / "gate")
        outcome = await aggregate(registry, request_of(job), work, checked=checked)
        metadata = {
            "name": f"{job['metadata']['name']}-pod",
            "namespace": self.hub_space,
            "labels": {
                "batch.kubernetes.io/job-name": job["metadata"]["name"],
                "batch.kubernetes.io/controller-uid": job["metadata"]["uid"],
            },
        }
        container = {"name": "aggregator", "image": IMAGE}
        spec = {"containers": [container], "restartPolicy": "Never", "automountServiceAccountToken": False}
        pod = await self.admin.create({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
        assert outcome is not None
        message = outcome.model_dump_json(exclude_none=True)
        ended = {"exitCode": 0, "message": message, "reason": "Completed"}
        state = {"name": "aggregator", "image": IMAGE, "imageID": "", "ready": False, "restartCount": 0}
        status = {"phase": "Succeeded", "containerStatuses": [{**state, "state": {"terminated": ended}}]}
        await self.admin._write(  # the client has no call for the status of a pod: only kubelet writes it
            "PATCH",
            f"/api/v1/namespaces/{self.hub_space}/pods/{pod['metadata']['name']}/status",
            {"status": status},
            content_type="application/merge-patch+json",
        )
