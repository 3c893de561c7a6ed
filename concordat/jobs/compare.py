"""Whether a Job is the expected one. What is not expected must be a default of the API server, with its value."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from concordat.jobs.quantity import value

_POD = "spec.template.spec"
_DEFAULTS: dict[str, Any] = {
    "spec.completionMode": "NonIndexed",
    "spec.manualSelector": False,
    f"{_POD}.dnsPolicy": "ClusterFirst",
    f"{_POD}.schedulerName": "default-scheduler",
    f"{_POD}.containers[].terminationMessagePath": "/dev/termination-log",
}
_CONTROLLER_UID = "batch.kubernetes.io/controller-uid"
_QUANTITIES = (
    f"{_POD}.containers[].resources.requests.",
    f"{_POD}.containers[].resources.limits.",
    f"{_POD}.volumes[].emptyDir.sizeLimit",
)
_SHOWN = 120


def same_job(found: Mapping[str, Any], expected: Mapping[str, Any]) -> str | None:
    """Return the first difference in words, or None. `expected` comes from a builder, `found` from the API server.

    Only `suspend`, the Job's status and what the API server writes into its metadata may differ freely.
    """
    return next(_differences(found, expected), None)


def _differences(found: Mapping[str, Any], expected: Mapping[str, Any]) -> Iterator[str]:
    metadata, wanted = _map(found.get("metadata")), expected["metadata"]
    for field in ("name", "namespace", "ownerReferences"):
        yield from _compare(f"metadata.{field}", f"metadata.{field}", metadata.get(field), wanted.get(field))
    labels = _map(metadata.get("labels"))
    for label, text in wanted["labels"].items():
        yield from _compare(f"metadata.labels[{label}]", "", labels.get(label), text)
    spec, uid = dict(_map(found.get("spec"))), metadata.get("uid")
    described = {field: value for field, value in expected["spec"].items() if field != "suspend"}
    spec.pop("suspend", None)
    # A Job counts the pods it selects as its own, so it must not select others.
    selector = spec.pop("selector", None)
    if selector is not None and selector != {"matchLabels": {_CONTROLLER_UID: uid}}:
        yield f"spec.selector is {_shown(selector)}, expected the API server's own"
    yield from _compare("spec", "spec", _without_generated(spec, str(metadata.get("name")), uid), described)


def _without_generated(spec: dict[str, Any], name: str, uid: Any) -> dict[str, Any]:
    """Return the spec without the four labels by which the Job controller finds its pods."""
    template = _map(spec.get("template"))
    metadata = _map(template.get("metadata"))
    labels = _map(metadata.get("labels"))
    generated = {"controller-uid": uid, _CONTROLLER_UID: uid, "job-name": name, "batch.kubernetes.io/job-name": name}
    kept = {label: text for label, text in labels.items() if label not in generated or generated[label] != text}
    return {**spec, "template": {**template, "metadata": {**metadata, "labels": kept}}}


def _compare(path: str, pattern: str, found: Any, expected: Any) -> Iterator[str]:
    """`path` names the place for people; `pattern` is the same with every index as []."""
    if isinstance(expected, Mapping) and isinstance(found, Mapping):
        for key in [*expected, *(key for key in found if key not in expected)]:
            at, kind = f"{path}.{key}", f"{pattern}.{key}"
            if key in expected:
                yield from _compare(at, kind, found.get(key), expected[key])
            elif found[key] is not None and found[key] != _default(kind, expected):
                yield f"{at} is {_shown(found[key])}, expected to be absent"
    elif isinstance(expected, list) and isinstance(found, list):
        if len(found) != len(expected):
            yield f"{path} has {len(found)} entries, expected {len(expected)}"
        for index, (one, other) in enumerate(zip(found, expected, strict=False)):
            yield from _compare(f"{path}[{index}]", f"{pattern}[]", one, other)
    elif not _equal(pattern, found, expected):
        is_ = "is absent" if found is None else f"is {_shown(found)}"
        yield f"{path} {is_}, expected {_shown(expected)}"


def _default(pattern: str, siblings: Mapping[str, Any]) -> Any:
    if pattern == f"{_POD}.serviceAccount":
        # The deprecated name of serviceAccountName; the API server keeps both alike.
        return siblings.get("serviceAccountName")
    return _DEFAULTS.get(pattern)


def _equal(pattern: str, found: Any, expected: Any) -> bool:
    if found == expected:
        # True == 1 in Python, but not in a manifest.
        return isinstance(found, bool) is isinstance(expected, bool)
    if isinstance(found, str) and isinstance(expected, str) and pattern.startswith(_QUANTITIES):
        try:
            return value(found) == value(expected)
        except ValueError:
            return False
    return False


def _map(thing: Any) -> Mapping[str, Any]:
    return thing if isinstance(thing, Mapping) else {}


def _shown(thing: Any) -> str:
    text = repr(thing)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
