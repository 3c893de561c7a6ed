"""The objects that Jobs are made from, and a Job as the API server returns it."""

from __future__ import annotations

import copy
from datetime import UTC, datetime
from typing import Any

from concordat.api import FederationRound, Release, Site, Update
from concordat.api.types import ArtifactRef
from concordat.jobs import aggregation_job, evaluation_job, training_job
from concordat.protocol.contract import Contract
from concordat.statements import SigningKey
from tests.support.contracts import contract

AT = datetime(2026, 11, 24, 12, tzinfo=UTC)
DIGEST = "sha256:0123456789abcdef" + "0" * 48
REF = {"repository": "digits/x", "digest": DIGEST}
IMAGE = "registry.local/learning@" + DIGEST
CANARY_IMAGE = "registry.local/hubs-own@" + DIGEST
KEY = SigningKey.generate().public
ROUND = {"name": "r1", "namespace": "concordat", "uid": "0123abcd-1"}


class Make:
    """Builders with the defaults of an ordinary round."""

    image = IMAGE

    def site(self, **spec: Any) -> Site:
        """The Site of site-a."""
        return Site.model_validate(
            {
                "metadata": {"name": "site-a", "namespace": "site-a"},
                "spec": {
                    "federations": [{"name": "digits", "dataClaim": "numbers"}],
                    "workspaceClaim": "workspace",
                    "judgingImage": IMAGE,
                    **spec,
                },
            }
        )

    def contract(self, **changes: Any) -> Contract:
        """A contract with site-a."""
        sites = [{"name": "site-a", "keyThumbprint": KEY.thumbprint, "publicKey": KEY.to_pem()}]
        fields = {"base": REF, "parent": REF, "sites": sites, "recipe": {"image": IMAGE, "trainFactor": "B"}}
        return contract(**{**fields, **changes})

    def update(self) -> Update:
        """site-a's Update."""
        return Update.model_validate(
            {
                "metadata": {"name": "r1-0123abcd", "namespace": "site-a", "uid": "update-uid"},
                "spec": {
                    "federation": "digits",
                    "roundRef": ROUND,
                    "site": "site-a",
                    "contract": REF,
                    "contractDigest": DIGEST,
                    "consentDeadline": AT,
                    "submissionDeadline": AT,
                },
            }
        )

    def release(self, **spec: Any) -> Release:
        """site-a's copy of a release."""
        fields = {
            "federation": "digits",
            "sequence": 1,
            "base": REF,
            "adapter": REF,
            "roundRef": ROUND,
            "runtimeClassName": "isolated",
        }
        return Release.model_validate(
            {
                "metadata": {"name": "r1-89abcdef", "namespace": "site-a", "uid": "release-uid"},
                "spec": {name: value for name, value in {**fields, **spec}.items() if value is not None},
            }
        )

    def round(self, name: str = "r1") -> FederationRound:
        """The round, in the hub."""
        return FederationRound.model_validate(
            {
                "metadata": {"name": name, "namespace": "concordat", "uid": "0123abcd-1"},
                "spec": {"federation": "digits", "parent": {"channelRef": {"name": "stable"}}},
            }
        )

    def jobs(self, contract_changes: dict[str, Any] | None = None) -> dict[str, dict[str, Any]]:
        """One of each."""
        request = ArtifactRef(repository="digits/rounds/r1", digest=DIGEST)
        contract = self.contract(runtimeClassName="isolated")
        return {
            "train": training_job(contract, self.update(), self.site()),
            "evaluate": evaluation_job(self.release(), self.site()),
            "aggregate": aggregation_job(
                self.round(),
                self.contract(**(contract_changes or {})),
                request=request,
                image=IMAGE,
                registry_url="http://concordat-registry.concordat.svc:5000",
                canary_image=CANARY_IMAGE,
            ),
        }

    def served(self, job: dict[str, Any]) -> dict[str, Any]:
        """What an API server of 1.36 makes of it; tests/apiserver/agent compares with a real one."""
        found = copy.deepcopy(job)
        uid, name = "job-uid", job["metadata"]["name"]
        generated = {
            "batch.kubernetes.io/controller-uid": uid,
            "batch.kubernetes.io/job-name": name,
            "controller-uid": uid,
            "job-name": name,
        }
        found["metadata"] |= {"uid": uid, "resourceVersion": "7", "generation": 1, "creationTimestamp": "x"}
        found["spec"] |= {
            "completionMode": "NonIndexed",
            "manualSelector": None,
            "selector": {"matchLabels": {"batch.kubernetes.io/controller-uid": uid}},
            "suspend": False,
        }
        found["spec"]["template"]["metadata"]["labels"] |= generated
        found["spec"]["template"]["metadata"]["creationTimestamp"] = None
        pod = found["spec"]["template"]["spec"]
        pod |= {
            "dnsPolicy": "ClusterFirst",
            "schedulerName": "default-scheduler",
            "serviceAccount": pod["serviceAccountName"],
        }
        pod["containers"][0]["terminationMessagePath"] = "/dev/termination-log"
        found["status"] = {"active": 1}
        return found
