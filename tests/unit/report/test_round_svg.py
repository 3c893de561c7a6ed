"""The picture of a round."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from concordat.api import Reason
from concordat.protocol.aggregation import AggregationReport
from concordat.report.round_svg import HEIGHT, PASSED, REJECTED, draw
from tests.support.contracts import REF, contract

SVG = "{http://www.w3.org/2000/svg}"


def report(*norms: str) -> AggregationReport:
    """Norms above 2 are rejected; the cosine of the first site is negative."""
    verdicts = [
        {
            "site": f"site-{number}",
            "artifact": REF.wire(),
            "statement": REF.wire(),
            "passed": float(norm) <= 2,
            "reason": Reason.VERIFIED.value if float(norm) <= 2 else Reason.NORM_EXCEEDED.value,
            "message": "as it is",
            "norm": norm,
            "measurements": {"centreCosine": "-0.5" if number == 0 else "0.5"},
            "updateSha256": REF.digest,
        }
        for number, norm in enumerate(norms)
    ]
    fields = {
        "schema": "concordat.dev/aggregation-report/v1",
        "contractDigest": REF.digest,
        "verdicts": verdicts,
        "rule": "TrimmedMean",
        "preAggregation": "NNM",
        "lora": "FrozenA",
        "maxFaultySites": 1,
        "rejected": 0,
        "remainingFaults": 1,
        "suspected": [],
        "spectrum": ["0.75", "0.25"],
        "reason": "Aggregated",
        "message": "4 updates",
        "aggregated": [],
    }
    return AggregationReport.model_validate(fields)


def _read(picture: bytes) -> ElementTree.Element:
    return ElementTree.fromstring(picture)  # noqa: S314 - our own


def test_every_site_is_named_and_a_rejected_one_has_its_colour_and_its_reason() -> None:
    root = _read(draw(report("1", "1.5", "7"), contract(screening={"clipNorm": "2"})))
    texts = [text.text for text in root.iter(f"{SVG}text")]
    assert texts[0] == "r1: Aggregated (TrimmedMean after NNM)"
    norms = next(root.iter(f"{SVG}g"))
    bars = [rect.attrib for rect in norms.iter(f"{SVG}rect")]
    assert [bar["fill"] for bar in bars] == [PASSED, PASSED, REJECTED]
    heights = [float(bar["height"]) for bar in bars]
    assert heights == pytest.approx([HEIGHT / 7, HEIGHT * 1.5 / 7, HEIGHT], abs=0.1)
    for site in ("site-0", "site-1", "site-2"):
        assert texts.count(site) == 3
    assert texts.count("NormExceeded") == 3


def test_a_negative_value_hangs_from_zero() -> None:
    root = _read(draw(report("1", "1"), contract()))
    _, cosines, _, _ = root.iter(f"{SVG}g")
    below, above = (rect.attrib for rect in cosines.iter(f"{SVG}rect"))
    assert float(below["y"]) == float(above["y"]) + float(above["height"]) == HEIGHT / 2
    assert float(below["height"]) == HEIGHT / 2


@pytest.mark.parametrize("sites", [0, 1, 5, 1000])
def test_the_same_report_gives_the_same_bytes_however_many_sites_there_are(sites: int) -> None:
    made = report(*["1.25"] * sites)
    first = draw(made, contract())
    assert first == draw(made, contract())
    rects = len(list(_read(first).iter(f"{SVG}rect")))
    assert rects == 1 + 3 * sites + len(made.spectrum)
