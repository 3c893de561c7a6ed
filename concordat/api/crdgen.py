"""Writes what is generated from the models: the CRDs, their copies in the chart, and the API reference.

`python -m concordat.api.crdgen` writes; with `--check` it changes nothing, prints what would change, and exits 1.
"""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from concordat.api import KINDS
from concordat.api.reference import reference
from concordat.api.resource import Column, Resource
from concordat.api.schema import Schema, structural
from concordat.api.types import GROUP, VERSION

HEADER = "# Generated from concordat/api by `make generate`; edit the models, not this file.\n"
LABELS = {"app.kubernetes.io/part-of": "concordat"}
KEEP = {"helm.sh/resource-policy": "keep"}

_API_VERSION = "Version of the schema of this object, always concordat.dev/v1alpha1."
_KIND = "Kind of this object."


def crd(kind: type[Resource], annotations: dict[str, str] | None = None) -> dict[str, Any]:
    """Return the CustomResourceDefinition of a kind. Raises SchemaError where a model cannot be expressed."""
    names = kind.KIND
    metadata: dict[str, Any] = {"name": f"{names.plural}.{GROUP}", "labels": LABELS}
    if annotations:
        metadata["annotations"] = annotations
    version: dict[str, Any] = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "subresources": {"status": {}},
        "additionalPrinterColumns": [_column(column) for column in names.columns],
    }
    if names.selectable:
        version["selectableFields"] = [{"jsonPath": path} for path in names.selectable]
    version["schema"] = {"openAPIV3Schema": root_schema(kind)}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": metadata,
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": names.kind,
                "listKind": f"{names.kind}List",
                "plural": names.plural,
                "singular": names.singular,
                "shortNames": [names.short],
                "categories": ["concordat"],
            },
            "versions": [version],
        },
    }


def root_schema(kind: type[Resource]) -> Schema:
    """Return the schema of whole objects of a kind: the spec with its defaults, the status with one.

    An object that nobody has looked at yet shows generation 0 as observed, so that kstatus and `kubectl wait` do not
    take it for done.
    """
    schema: Schema = {
        "description": kind.__doc__ or "",
        "type": "object",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"description": _API_VERSION, "type": "string"},
            "kind": {"description": _KIND, "type": "string"},
            "metadata": {"type": "object"},
            "spec": structural(kind, "spec"),
            "status": {**structural(kind, "status", defaults=False), "default": {"observedGeneration": 0}},
        },
    }
    if kind.KIND.rules:
        schema["x-kubernetes-validations"] = list(kind.KIND.rules)
    return schema


def _column(column: Column) -> dict[str, Any]:
    out: dict[str, Any] = {"name": column.name, "type": column.type, "jsonPath": column.json_path}
    if column.priority:
        out["priority"] = column.priority
    return out


class _Dumper(yaml.SafeDumper):
    """Writes shared parts out in full: anchors would tie distant parts of a CRD together."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def dump(document: dict[str, Any]) -> str:
    """YAML with the header; deterministic."""
    return HEADER + yaml.dump(document, Dumper=_Dumper, sort_keys=False, width=110, allow_unicode=True)


def render_all() -> dict[str, str]:
    """File name → YAML document of every CRD, as in crds/; joined by `---` they are one stream for kubectl."""
    return {_file(kind): dump(crd(kind)) for kind in KINDS}


def outputs() -> Iterator[tuple[str, str]]:
    """Path, relative to the repository, and content of every generated file."""
    for file, text in render_all().items():
        yield f"crds/{file}", text
    for kind in KINDS:
        yield f"charts/concordat-crds/templates/{_file(kind)}", dump(crd(kind, KEEP))
    yield "docs/reference/api.md", reference({kind: root_schema(kind) for kind in KINDS})


def _file(kind: type[Resource]) -> str:
    return f"{GROUP}_{kind.KIND.plural}.yaml"


def stale(root: Path, wanted: Mapping[str, str] | None = None) -> list[str]:
    """Paths of generated files that are missing, differ, or belong to no kind any more; `wanted` is `outputs`."""
    wanted = dict(outputs()) if wanted is None else wanted
    found = [
        path.relative_to(root).as_posix()
        for folder in ("crds", "charts/concordat-crds/templates")
        for path in sorted((root / folder).glob(f"{GROUP}_*.yaml"))
    ]
    differing = [path for path, text in wanted.items() if _read(root / path) != text]
    return [*differing, *(path for path in found if path not in wanted)]


def _read(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.is_file() else None


def _check(root: Path) -> int:
    wanted = dict(outputs())
    paths = stale(root, wanted)
    for path in paths:
        before = (_read(root / path) or "").splitlines(keepends=True)
        after = wanted.get(path, "").splitlines(keepends=True)
        sys.stdout.writelines(difflib.unified_diff(before, after, path, f"{path} (generated)"))
    if paths:
        print(f"{len(paths)} generated file(s) differ from the models: run `make generate`", file=sys.stderr)
    return 1 if paths else 0


def _write(root: Path) -> int:
    wanted = dict(outputs())
    for path in stale(root, wanted):
        target = root / path
        if path in wanted:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(wanted[path], encoding="utf-8")
            print(f"wrote {path}")
        else:
            target.unlink()
            print(f"removed {path}")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m concordat.api.crdgen", description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if a file would change")
    parser.add_argument("--root", type=Path, default=Path.cwd(), help="the repository (default: current folder)")
    options = parser.parse_args(argv)
    return _check(options.root) if options.check else _write(options.root)


if __name__ == "__main__":
    sys.exit(main())
