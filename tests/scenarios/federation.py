"""A whole federation in one process, on one API server and one registry: the operator's and every agent's own
reconcilers. The test plays the scheduler of reconciles, and the node: it ends Jobs with what their pods would leave.
"""

from __future__ import annotations

import itertools
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from concordat.api import ConditionSet, ConditionType, FederationRound, Reason, Release, ReleaseChannel, Site, Update
from concordat.api.release import ReleaseStatus
from concordat.artifacts import RegistryStore
from concordat.controller import JOB, Cluster, Conflict, Controller, FixedClock, Invalid, NotFound, write_status
from concordat.controller.kinds import KindLike
from concordat.lineage import Trust
from concordat.protocol import artifact_types as types
from concordat.protocol.contract import Contract
from concordat.statements import SigningKey
from concordat.tensors import Tensors, read_tensors, write_tensors
from concordat_agent.agent import Agent
from concordat_agent.main import controllers as agent_controllers
from concordat_agent.policy import SitePolicy
from concordat_agent.releases.champions import Champions
from concordat_agent.signer import Prepare, Signer, clipped
from concordat_agent.workspace import Workspace
from concordat_aggregator.job import Until
from concordat_aggregator.job import run as aggregate
from concordat_operator.hub import FIELD_MANAGER, Hub
from concordat_operator.keys import load_or_create, publish_first
from concordat_operator.main import controllers as hub_controllers
from concordat_operator.rounds.aggregation_result import request_of
from concordat_operator.settings import Settings
from tests.fakes.api_server import Denial, FakeApiServer, FakeCluster
from tests.scenarios.faults import Killed, Mortal, NodeCache
from tests.support.presence import present
from tests.support.waiting import no_hang

IMAGE = "registry.local/learning@sha256:" + "1" * 64
A, B = "vit.layer.0.lora_A.weight", "vit.layer.0.lora_B.weight"
PARENT: Tensors = {A: np.eye(2, 4, dtype=np.float32), B: np.zeros((4, 2), np.float32)}
CONFIG = b'{"r": 2, "lora_alpha": 2}'
KINDS: tuple[KindLike, ...] = (FederationRound, Site, Update, Release, ReleaseChannel, JOB)
EVALUATOR = "evaluator"
Key = tuple[str, str]


class Federation:
    """Hub, sites and evaluator, each in its own namespace of one API server."""

    def __init__(self, cluster: Mortal, admin: Cluster, registry: RegistryStore, url: str, folder: Path) -> None:
        self.cluster, self.admin, self.registry, self.folder = cluster, admin, registry, folder
        self.prefix = f"t{next(_NUMBERS)}"
        self.hub_space, self.url = f"{self.prefix}-hub", url
        self.clock = FixedClock(datetime.now(UTC).replace(microsecond=0))
        self.cache = NodeCache()
        self.cache.watch(KINDS)
        self.hub_controllers: list[Controller] = []
        self.agents: dict[str, list[Controller]] = {}
        self.workspaces: dict[str, Workspace] = {}
        self.site_keys: dict[str, SigningKey] = {}
        self.outcomes: dict[str, str] = {}
        """Site to what its training Job ends with: a reason of failure, instead of a candidate."""
        self.quality: dict[str, int] = {}
        """Namespace to the candidate's accuracy there, in parts per million; 900000 where nothing is said."""
        self.canary_loss: dict[str, str] = {}
        """Namespace of a site to what its update does to the loss on the hub's canary data."""
        self.launched: list[Key] = []
        self.held: set[str] = set()
        """Namespaces whose Jobs do not end."""
        self.mortal: str | None = None
        """Kill the operator `before` or `after` every write."""
        self.deaths = 0
        cluster.on_write = admin.on_write = self._feed

    @property
    def memory(self) -> FakeApiServer:
        """The API server in memory. Skips the test on the real one, where nobody can look between two requests."""
        if not isinstance(self.admin, FakeCluster):
            pytest.skip("this fault is made inside an API server in memory")
        return self.admin.server

    def name(self, short: str) -> str:
        """The namespace of a site."""
        return f"{self.prefix}-{short}"

    def _feed(self, written: dict[str, Any]) -> None:
        self.cache.feed(written)

    # ---- set-up

    async def start_operator(self) -> None:
        """A fresh operator process: nothing is in its memory."""
        settings = Settings(
            namespace=self.hub_space,
            registry_url=self.url,
            operator_image=IMAGE.replace("learning", "operator"),
            learning_image=IMAGE,
        )
        keys = await load_or_create(self.admin, self.hub_space)
        await publish_first(self.admin, self.hub_space, keys)
        self.keys = keys
        self.hub_controllers = hub_controllers(Hub(settings, self.cluster, self.cache, self.registry, self.clock, keys))

    async def join(
        self,
        short: str,
        *,
        role: str = "Trainer",
        prepare: Prepare = clipped,
        labels: dict[str, str] | None = None,
        trust: Trust | None = None,
        channel: str = "stable",
        key_of: str | None = None,
        **rules: Any,
    ) -> None:
        """A site with its agent, subscribed to `channel` if it is a trainer. `key_of` is a site whose key it shows."""
        site = self.name(short)
        await self.namespace(site)
        spec = {
            "role": role,
            "federations": [{"name": "digits", "dataClaim": "data"}],
            "workspaceClaim": "workspace",
            **({"channel": channel} if role == "Trainer" else {}),
        }
        metadata = {"name": site, "namespace": site, "labels": labels or {}}
        await self.admin.create(
            {"apiVersion": "concordat.dev/v1alpha1", "kind": "Site", "metadata": metadata, "spec": spec}
        )
        policy = SitePolicy.from_json(json.dumps({"consent": {"maxSteps": 500, "maxWallSeconds": 3600}, **rules}))
        key, folder = SigningKey.generate() if key_of is None else self.site_keys[key_of], self.folder / site
        self.site_keys[short] = key
        folder.mkdir()
        if role == "Evaluator":
            self.evaluator_key = key
        trust = trust or self.keys.trust({self.name(EVALUATOR): self.evaluator_key.public})
        self.workspaces[site] = Workspace(folder)
        agent = Agent(
            site=site,
            cluster=self.admin,
            cache=self.cache,
            registry=self.registry,
            clock=self.clock,
            policy=policy,
            trust=trust,
            signer=Signer(site, key, self.registry, policy.digest, prepare),
            workspace=self.workspaces[site],
            champions=Champions(folder / "adopted.json"),
        )
        self.agents[site] = agent_controllers(agent)

    async def namespace(self, name: str) -> None:
        """A namespace with its default ServiceAccount, which pods need."""
        await self.admin.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})

    async def publish_genesis(self) -> None:
        """The release of sequence 0 and the channel."""
        files = {types.ADAPTER_FILE: write_tensors(PARENT), types.ADAPTER_CONFIG_FILE: CONFIG}
        adapter = await self.registry.push("digits/adapters", types.ADAPTER, files)
        base = await self.registry.push("digits/base", types.BASE_PACKAGE, {"package.json": b"{}"})
        spec = {"federation": "digits", "sequence": 0, "base": base.wire(), "adapter": adapter.wire()}
        await self.create("Release", "digits-0", spec)
        await self.create("ReleaseChannel", "stable", {"federation": "digits", "follow": "Approved"})

    async def create(self, kind: str, name: str, spec: dict[str, Any]) -> None:
        """An object in the hub's namespace."""
        metadata = {"name": name, "namespace": self.hub_space}
        await self.admin.create(
            {"apiVersion": "concordat.dev/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec}
        )

    async def foreign_release(self, name: str, *, sequence: int) -> None:
        """An approved release of the federation that this operator did not make."""
        genesis = self.cache.get(Release, self.hub_space, "digits-0")
        assert genesis is not None
        origin = {"name": "other", "namespace": self.hub_space, "uid": "00000000-0000-4000-8000-000000000000"}
        spec = {**genesis.spec.wire(), "sequence": sequence, "roundRef": origin, "parent": genesis.spec.adapter.wire()}
        await self.create("Release", name, spec)
        await self.sync()
        release = self.cache.get(Release, self.hub_space, name)
        assert release is not None
        conditions = ConditionSet([], 1, self.clock.now())
        conditions.set(ConditionType.APPROVED, True, Reason.APPROVED, "Restored.")
        status = ReleaseStatus(conditions=conditions.list())
        await write_status(self.admin, release, status, FIELD_MANAGER, {ConditionType.APPROVED})

    async def round(self, name: str, **spec: Any) -> None:
        """Apply a round."""
        sites = {"screening": {"clipNorm": "2"}, "aggregation": {"maxFaultySites": 1}, "quorum": 3}
        channel = {"parent": {"channelRef": {"name": "stable"}}}
        await self.create("FederationRound", name, {"federation": "digits", **channel, **sites, **spec})

    async def patch(self, plural: str, name: str, spec: dict[str, Any]) -> None:
        """Merge into the spec of an object of the hub, as kubectl does."""
        path = f"/apis/concordat.dev/v1alpha1/namespaces/{self.hub_space}/{plural}/{name}"
        await self.admin._write("PATCH", path, {"spec": spec}, content_type="application/merge-patch+json")

    async def refuse_jobs(self, short: str) -> None:
        """An admission policy of the site that admits no Jobs; returns once the API server enforces it."""
        name, space = f"{self.prefix}-no-jobs", self.name(short)
        if isinstance(self.admin, FakeCluster):
            self.admin.server.denials.append(_no_jobs(space))
            return
        group = "admissionregistration.k8s.io/v1"
        rules = [{"apiGroups": ["batch"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["jobs"]}]
        here = {"matchLabels": {"kubernetes.io/metadata.name": space}}
        policy = {
            "matchConstraints": {"resourceRules": rules, "namespaceSelector": here},
            "validations": [{"expression": "false", "message": "no Jobs here"}],
        }
        bound = {"policyName": name, "validationActions": ["Deny"]}
        for kind, plural, spec in (
            ("ValidatingAdmissionPolicy", "validatingadmissionpolicies", policy),
            ("ValidatingAdmissionPolicyBinding", "validatingadmissionpolicybindings", bound),
        ):
            path = f"/apis/{group}/{plural}"
            made = {"apiVersion": group, "kind": kind, "metadata": {"name": name}, "spec": spec}
            await self.admin._write("POST", path, made)
        container = {"name": "probe", "image": IMAGE}
        pod = {"containers": [container], "restartPolicy": "Never"}
        job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "probe"}}
        probe = {**job, "spec": {"template": {"spec": pod}}}
        path, dry = f"/apis/batch/v1/namespaces/{space}/jobs", {"dryRun": "All"}
        async with no_hang(lambda: f"the admission policy {name}"):
            while True:
                try:
                    await self.admin._request("POST", path, dry, probe)
                except Invalid:
                    return

    # ---- running

    async def settle(self, passes: int = 60) -> None:
        """Reconcile everything, again and again, until nothing is written any more and no Job is left to end."""
        before = await self.sync()
        for _ in range(passes):
            await self.operate()
            for controllers in self.agents.values():
                await self.step(controllers)
            await self.end_jobs()
            after = await self.sync()
            if after == before:
                return
            before = after
        raise AssertionError(f"not settled after {passes} passes")

    async def operate(self) -> None:
        """One pass of the operator; a new process goes on where the old one died."""
        self.cluster.moment = self.mortal
        while True:
            try:
                await self.step(self.hub_controllers)
            except Killed:
                self.deaths += 1
                await self.sync()
                await self.start_operator()
            else:
                return

    async def step(self, controllers: list[Controller]) -> None:
        """Each reconcile once for every object that leads to it."""
        for controller in controllers:
            keys: dict[Key, None] = {}
            for kind, keys_of in controller.watches.items():
                for obj in self.cache.list(kind):
                    keys |= dict.fromkeys(keys_of(obj))
            for key in keys:
                try:
                    await controller.reconcile(key)
                except (Conflict, NotFound):
                    continue  # A race with another writer: the next pass sees what it wrote.

    async def sync(self) -> str:
        """List everything, as the watches would tell it; returns what tells a changed world from an unchanged one."""
        state = []
        for kind in KINDS:
            items, version = await self.admin.list_at(kind)
            mine = [i for i in items if i["metadata"]["namespace"].startswith(f"{self.prefix}-")]
            self.cache.sync(kind, mine, version)
            state += [
                {
                    **i,
                    "metadata": {
                        k: v for k, v in i["metadata"].items() if k not in ("managedFields", "resourceVersion")
                    },
                }
                for i in mine
                if kind is not JOB
            ]
        return json.dumps([state, sorted(self.cache.ended)], default=str)

    async def end_jobs(self) -> None:
        """What the node does: run the Jobs that are there."""
        for job in self.cache.list(JOB):
            metadata = job["metadata"]
            if metadata["uid"] in self.cache.ended:
                continue
            key = (metadata["namespace"], metadata["name"])
            if key[0] in self.held:
                continue
            self.launched.append(key)
            failure = None
            if key[0] == self.hub_space:
                await self._aggregate(job)
            elif metadata["name"] in {u.metadata.name for u in self.cache.list(Update, key[0])}:
                failure = self.outcomes.get(key[0])
                self._train(key)
            else:
                self._evaluate(key)
            at = self.clock.now().strftime("%Y-%m-%dT%H:%M:%SZ")
            ended = {"type": "Failed" if failure else "Complete", "status": "True"}
            more = {"reason": failure} if failure else {}
            status: dict[str, Any] = {"conditions": [{**ended, **more}]}
            self.cache.ended[metadata["uid"]] = status if failure else {**status, "completionTime": at}

    def _train(self, key: Key) -> None:
        number = sorted(self.agents).index(key[0])
        # Different for every site, as honest training is: what points the same way counts as a copy.
        # Beside something in common, which they all learn.
        own = np.random.default_rng(number).normal(scale=0.2, size=(4, 2))
        values = (own + 0.2).astype(np.float32)
        evidence = {
            "schema": "concordat.dev/training-evidence/v1",
            "steps": 100,
            "examples": 200,
            "validationExamples": 50,
            "parentPpm": 800_000,
            "candidatePpm": 850_000,
            "isolation": "verified",
        }
        parent = read_tensors((self.workspaces[key[0]].inputs(key[1]) / "parent" / types.ADAPTER_FILE).read_bytes())
        candidate = write_tensors({A: parent[A], B: parent[B] + values})
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
        (out / "canary.json").write_text(json.dumps(report))

    async def _aggregate(self, job: dict[str, Any]) -> None:
        """Run the real aggregator, and leave its pod with the termination message."""
        work = self.folder / "work" / job["metadata"]["uid"]
        if job["spec"]["template"]["spec"].get("initContainers"):
            await aggregate(self.registry, request_of(job), work, Until.UPDATES)
            self._check_canary(work / "canary", work)
            await aggregate(self.registry, request_of(job), work, Until.CANDIDATE)
            self._check_canary(work / "gate", work / "gate")
        outcome = await aggregate(self.registry, request_of(job), work)
        metadata = {
            "name": f"{job['metadata']['name']}-pod",
            "namespace": self.hub_space,
            "labels": {"batch.kubernetes.io/job-name": job["metadata"]["name"]},
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

    # ---- looking

    def found(self, name: str) -> FederationRound:
        """The round."""
        found = self.cache.get(FederationRound, self.hub_space, name)
        assert isinstance(found, FederationRound)
        return found

    def released(self, name: str) -> str:
        """Return the name of the release that a round led to."""
        return present(self.found(name).status.release).name

    async def contract(self, name: str) -> Contract:
        """The signed contract of a round."""
        signed = present(self.found(name).status.contract)
        return Contract.from_bytes(await self.registry.read(signed.artifact, Contract.FILE))

    def updates(self, name: str) -> dict[str, Update]:
        """The round's Updates by the short name of their site."""
        uid = self.found(name).metadata.uid
        mine = [u for u in self.cache.list(Update) if u.spec.round_ref.uid == uid]
        return {u.spec.site.removeprefix(f"{self.prefix}-"): u for u in mine}

    def copies(self, name: str) -> dict[str, Release]:
        """A release's copies by the short name of their site."""
        mine = [r for r in self.cache.list(Release) if r.metadata.name == name]
        return {r.metadata.namespace.removeprefix(f"{self.prefix}-"): r for r in mine}

    def channel(self, name: str) -> ReleaseChannel:
        """A channel of the hub."""
        found = self.cache.get(ReleaseChannel, self.hub_space, name)
        assert isinstance(found, ReleaseChannel)
        return found

    async def champion(self, short: str) -> str | None:
        """What a site uses."""
        site = self.cache.get(Site, self.name(short), self.name(short))
        return site.status.champion.release if site.status.champion else None


def _no_jobs(space: str) -> Denial:
    def denial(method: str, path: str, _: Any) -> tuple[int, str, str] | None:
        refused = method == "POST" and path == f"/apis/batch/v1/namespaces/{space}/jobs"
        return (422, "Invalid", "no Jobs here") if refused else None

    return denial


_NUMBERS = itertools.count(1)
