"""How the kinds of the API server are named, ours and those of Kubernetes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from concordat.api.resource import Resource
from concordat.api.types import API_VERSION


@dataclass(frozen=True)
class GVK:
    """A kind by group, version and name. `plural` defaults to the lower-case kind with an s."""

    api_version: str
    kind: str
    plural: str = ""
    namespaced: bool = True

    @property
    def resource(self) -> str:
        """Return the name in URLs, for example jobs."""
        return self.plural or f"{self.kind.lower()}s"

    @property
    def group(self) -> str:
        """Return the API group; empty for the core group."""
        return self.api_version.partition("/")[0] if "/" in self.api_version else ""

    @property
    def version(self) -> str:
        """Return the API version without its group."""
        return self.api_version.rpartition("/")[2]

    def path(self, namespace: str | None = None, name: str | None = None, subresource: str | None = None) -> str:
        """Return the URL path of the collection, or of one object. No namespace means all namespaces."""
        parts = ["/apis" if self.group else "/api", self.api_version]
        if self.namespaced and namespace:
            parts += ["namespaces", namespace]
        parts.append(self.resource)
        if name is not None:
            if self.namespaced and not namespace:
                raise ValueError(f"namespace is empty: {self.kind} {name} is namespaced, name its namespace")
            parts.append(name)
        if subresource:
            parts.append(subresource)
        return "/".join(parts)


KindLike = type[Resource] | GVK

JOB = GVK("batch/v1", "Job")
POD = GVK("v1", "Pod")
LEASE = GVK("coordination.k8s.io/v1", "Lease")
SECRET = GVK("v1", "Secret")
CONFIGMAP = GVK("v1", "ConfigMap")
NAMESPACE = GVK("v1", "Namespace", namespaced=False)
EVENT = GVK("events.k8s.io/v1", "Event")
TOKEN_REVIEW = GVK("authentication.k8s.io/v1", "TokenReview", namespaced=False)
CRD = GVK("apiextensions.k8s.io/v1", "CustomResourceDefinition", namespaced=False)
_KNOWN = {(k.api_version, k.kind): k for k in (JOB, POD, LEASE, SECRET, CONFIGMAP, NAMESPACE, EVENT, CRD)}


def gvk(kind: KindLike) -> GVK:
    """Return the GVK of a kind given either way."""
    if isinstance(kind, GVK):
        return kind
    return GVK(API_VERSION, kind.KIND.kind, kind.KIND.plural)


def gvk_of(obj: dict[str, Any]) -> GVK:
    """Return the GVK of an object by its apiVersion and kind."""
    try:
        key = (obj["apiVersion"], obj["kind"])
    except KeyError as missing:
        raise ValueError(f"object has no {missing}: every object needs apiVersion and kind") from None
    return _KNOWN.get(key) or GVK(*key)
