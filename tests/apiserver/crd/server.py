"""Plain requests to an API server that has our custom resources, and what their schemas say."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from kubernetes import config

from concordat.api import KINDS, FederationRound, Membership, Release, ReleaseChannel, Resource, Site, Update
from concordat.api.crdgen import root_schema

Schema = dict[str, Any]
Obj = dict[str, Any]
NAMESPACE = "acceptance"
DIGEST = "sha256:" + "0123456789abcdef" * 4
REF = {"repository": "digits/adapters", "digest": DIGEST}
PARENT = {"parent": {"releaseRef": {"name": "genesis"}}}
ROUND: Obj = {"federation": "digits", **PARENT}
ROUND_REF = {"name": "round-1", "namespace": "concordat", "uid": "12345678-aaaa"}
SITE: Obj = {"federations": [{"name": "digits", "dataClaim": "data"}], "workspaceClaim": "workspace"}
SITE["judgingImage"] = "x@sha256:" + "1" * 64
RELEASE: Obj = {"federation": "digits", "sequence": 1, "base": REF, "adapter": REF, "roundRef": ROUND_REF}
CHANNEL: Obj = {"federation": "digits", "follow": "Approved"}
UPDATE: Obj = {
    "federation": "digits",
    "roundRef": ROUND_REF,
    "site": "site-a",
    "contract": REF,
    "contractDigest": DIGEST,
    "consentDeadline": "2026-11-24T12:00:00Z",
    "submissionDeadline": "2026-11-24T13:00:00Z",
}
MEMBERSHIP: Obj = {"federations": ["digits"], "keys": [{"publicKey": "pem"}]}
MINIMAL = {
    FederationRound: ROUND,
    Membership: MEMBERSHIP,
    Site: SITE,
    Update: UPDATE,
    Release: RELEASE,
    ReleaseChannel: CHANNEL,
}
"""The smallest spec of each kind."""


@dataclass(frozen=True)
class Answer:
    """What the API server said."""

    code: int
    body: Obj

    @property
    def accepted(self) -> bool:
        """Whether it took the object."""
        return self.code < 300

    @property
    def causes(self) -> list[str]:
        """Its objections, field by field."""
        return [cause["message"] for cause in self.body.get("details", {}).get("causes", [])]

    @property
    def message(self) -> str:
        """Its answer in one text."""
        return str(self.body.get("message", ""))


class Api:
    """Plain requests for our kinds, in one namespace."""

    def __init__(self, kubeconfig: str) -> None:
        self._client = config.new_client_from_config(config_file=kubeconfig)

    def send(self, method: str, path: str, body: Obj | None = None, **query: str) -> Answer:
        """One request; dry runs and field validation are the caller's choice."""
        headers = {"Accept": "application/json", "Content-Type": "application/json"}
        if method == "PATCH":
            headers["Content-Type"] = "application/merge-patch+json"
        call = self._client.param_serialize(
            method, path, query_params=list(query.items()), header_params=headers, body=body
        )
        response = self._client.call_api(*call)
        return Answer(response.status, json.loads(response.read()))

    def try_create(self, obj: Obj) -> Answer:
        """A dry run that refuses unknown fields."""
        kind = next(kind for kind in KINDS if kind.KIND.kind == obj["kind"])
        return self.send("POST", url(kind), obj, dryRun="All", fieldValidation="Strict")

    def create(self, kind: type[Resource], spec: Obj, name: str) -> None:
        """An object that stays."""
        answer = self.send("POST", url(kind), manifest(kind, spec, name))
        assert answer.accepted, answer.message


def url(kind: type[Resource], *rest: str) -> str:
    return "/".join(["/apis/concordat.dev/v1alpha1/namespaces", NAMESPACE, kind.KIND.plural, *rest])


def manifest(kind: type[Resource], spec: Obj, name: str = "one") -> Obj:
    return {
        "apiVersion": "concordat.dev/v1alpha1",
        "kind": kind.KIND.kind,
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": spec,
    }


def cel_messages(schema: Schema) -> Iterator[str]:
    for rule in schema.get("x-kubernetes-validations", ()):
        yield rule["message"]
    for child in (*schema.get("properties", {}).values(), schema.get("items"), schema.get("additionalProperties")):
        if isinstance(child, dict):
            yield from cel_messages(child)


SCHEMAS = {kind: root_schema(kind) for kind in KINDS}
CEL = {kind: set(cel_messages(schema)) for kind, schema in SCHEMAS.items()}


def schema_accepts(kind: type[Resource], answer: Answer) -> bool:
    """Accepted, or refused by nothing but rules in CEL."""
    by_rules = bool(answer.causes) and all(any(m in cause for m in CEL[kind]) for cause in answer.causes)
    return answer.accepted or by_rules
