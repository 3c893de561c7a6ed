"""Verdicts and the handling of copies, without a registry."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from concordat.api.conditions import Reason
from concordat.api.types import ArtifactRef
from concordat.protocol.aggregation import SubmittedUpdate
from concordat.tensors import write_tensors
from concordat_aggregator.inputs import RequestError, parse_ref
from concordat_aggregator.verify import UpdateVerdict, reject_copies

REF = ArtifactRef(repository="digits/rounds/u/site-a", digest="sha256:" + "a" * 64)


def _verdict(folder: Path, site: str, arrived: int, values: list[float] | None) -> UpdateVerdict:
    submission = SubmittedUpdate(site=site, artifact=REF, statement=REF)
    if values is None:
        return UpdateVerdict(submission, Reason.NOT_FINITE, "no", arrived)
    path = folder / site
    path.write_bytes(write_tensors({"x": np.array(values, np.float32)}))
    return UpdateVerdict(submission, Reason.VERIFIED, "", arrived, 1.0, delta=path)


@pytest.mark.parametrize("order", list(itertools.permutations(["site-a", "site-b", "site-c", "site-d"])))
def test_of_equal_updates_the_first_to_arrive_passes(tmp_path: Path, order: tuple[str, ...]) -> None:
    """Finding F3: the first by name passed, so that a copy could evict its original."""
    values = {"site-a": None, "site-b": [1.0, 0.0], "site-c": [1.0, -0.0], "site-d": [1.0, 1e-45]}
    judged = reject_copies(_verdict(tmp_path, site, order.index(site), values[site]) for site in sorted(order))
    first, copy = sorted(("site-b", "site-c"), key=order.index)
    wanted = {"site-a": Reason.NOT_FINITE, first: Reason.VERIFIED, copy: Reason.DUPLICATE, "site-d": Reason.VERIFIED}
    assert [(v.submission.site, v.reason) for v in judged] == sorted(wanted.items())
    [copied] = [v for v in judged if v.site == copy]
    assert (copied.delta, copied.norm) == (None, 1.0)
    assert first in copied.message


@given(st.text(max_size=2000), st.floats(min_value=0))
def test_every_verdict_can_be_written(message: str, norm: float) -> None:
    verdict = UpdateVerdict(
        SubmittedUpdate(site="site-a", artifact=REF, statement=REF), Reason.INVALID, message, 0, norm
    )
    written = json.loads(verdict.reported().model_dump_json())
    assert len(written["message"]) <= 500
    assert written["passed"] is False
    assert written["updateSha256"] == REF.digest


@pytest.mark.parametrize(
    "text",
    ["", "@", "digits", f"@{REF.digest}", "digits@sha256:00", f"digits@{REF.digest}\n", f"../x@{REF.digest}", "a:b@c"],
)
def test_a_reference_names_repository_and_digest(text: str) -> None:
    with pytest.raises(RequestError, match="is not <repository>@sha256"):
        parse_ref(text)


def test_a_reference_is_read() -> None:
    assert parse_ref(f"{REF.repository}@{REF.digest}") == REF
