"""The aggregator Job tells a request that can never be answered from an outage."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from concordat.api.types import ArtifactRef
from concordat.protocol import artifact_types as types
from concordat.statements import SigningKey
from concordat.tensors import write_tensors
from concordat_aggregator.job import EXIT_INVALID, EXIT_TRANSIENT, main
from tests.apiserver.registry.federation import (
    CONFIG,
    A,
    Federation,
    federation,
    running,
)
from tests.apiserver.registry.server import Registry

__all__ = ["federation", "running"]

FULL = np.full((4, 2), 0.01, np.float32)
OTHER = ArtifactRef(repository="digits/adapters", digest="sha256:" + "9" * 64)


def _twin_keys(f: Federation) -> dict[str, Any]:
    f.keys["site-b"] = f.keys["site-a"]
    return {}


@pytest.mark.parametrize(
    ("prepare", "request_changes", "says"),
    [
        (lambda f: {}, {"schema": "other"}, "schema"),
        (lambda f: {}, {"contractDigest": "sha256:" + "0" * 64}, "contractDigest"),
        (lambda f: {}, {"contractKey": SigningKey.generate().public.to_pem()}, "not signed by an accepted key"),
        (lambda f: {}, {"contractKey": "pem"}, "not a PEM public key"),
        (lambda f: {}, {"contract": {"repository": "digits/no", "digest": OTHER.digest}}, "is not in the registry"),
        (lambda f: {}, {"submissions": 1}, "submissions"),
        (_twin_keys, {}, "gives two sites one key"),
        (lambda f: {"parent": OTHER}, {}, "is not in the registry"),
        (
            lambda f: {
                "parent": f.push(
                    "digits/adapters",
                    types.ADAPTER,
                    {types.ADAPTER_FILE: write_tensors({A: FULL.T}), types.ADAPTER_CONFIG_FILE: CONFIG},
                )
            },
            {},
            "lora_B",
        ),
    ],
)
def test_an_invalid_request_is_told_from_an_outage(
    federation: Federation,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    prepare: Callable[[Federation], dict[str, Any]],
    request_changes: dict[str, Any],
    says: str,
) -> None:
    contract = federation.open(**prepare(federation))
    request = federation.request(contract, [], **request_changes)
    result = tmp_path / "result"
    assert main(federation.arguments(request, tmp_path)) == EXIT_INVALID
    assert says in caplog.text
    assert not result.exists()


@pytest.mark.parametrize("names", [("site-a", "site-a"), ("site-f",)])
def test_submissions_must_be_of_the_contracts_sites_once(
    federation: Federation, tmp_path: Path, caplog: pytest.LogCaptureFixture, names: tuple[str, ...]
) -> None:
    contract = federation.open()
    entry = federation.honest("site-a")[0]
    request = federation.request(contract, [{**entry, "site": name} for name in names])
    assert main(federation.arguments(request, tmp_path)) == EXIT_INVALID
    assert names[0] in caplog.text


def test_the_program_starts_without_torch_and_reports_an_outage(own_registry: Registry, tmp_path: Path) -> None:
    own_registry.stop()
    code = (
        "import asyncio, sys\n"
        "from concordat_aggregator import job\n"
        "from concordat.artifacts import http\n"
        "heavy = {'torch', 'kopf', 'kubernetes', 'scipy', 'sklearn'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "http.TRIES = 2\n"
        "sys.exit(job.main(sys.argv[1:]))\n"
    )
    request = "digits/rounds/x@sha256:" + "0" * 64
    where = ["--registry", own_registry.url, "--request", request, "--work", str(tmp_path)]
    arguments = [*where, "--result", str(tmp_path / "result")]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": ":".join(sys.path)},
    )
    assert done.returncode == EXIT_TRANSIENT, done.stderr
    assert "does not answer" in done.stderr
    assert not (tmp_path / "result").exists()
