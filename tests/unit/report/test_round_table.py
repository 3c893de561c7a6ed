"""What a round looks like on narrow and wide terminals. Nothing is cut, whatever the names are."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from concordat.api import Reason
from concordat.report.round_table import RoundTable, broken, width
from concordat.report.round_view import ROUND_STEPS, STEPS, RoundView, SiteRow
from concordat_cli import round_commands
from concordat_cli.main import main

LONG = "hospital-of-the-university-{}-department-of-radiology"
LONGEST_REASON = max(Reason, key=len).value
COMPACT = ["site", "steps", "norm", "verdict", "own quality", "release"]
SUMMARY = "round round-1: Verifying: 3 of 5 updates are verified"


def row(site: str, **changes: Any) -> SiteRow:
    usual: dict[str, Any] = {
        "steps": dict.fromkeys(STEPS, "True"),
        "examples": 125,
        "norm": "6.41",
        "measurements": {},
        "verdict": "Verified",
        "local_before_ppm": 702_381,
        "local_after_ppm": 714_286,
        "validation_examples": 84,
        "decision": "adopted",
        "message": "",
    }
    return SiteRow(site=site, **(usual | changes))


def a_round(*rows: SiteRow) -> RoundView:
    return RoundView(
        name="round-1",
        phase="Verifying",
        steps=dict.fromkeys((*ROUND_STEPS, "Succeeded"), "True"),
        sites=rows,
        ready="False",
        reason="InProgress",
        message="3 of 5 updates are verified",
        release=None,
        evaluation=None,
    )


DEMO = a_round(
    row("site-a"),
    row(
        "site-d",
        steps=dict.fromkeys(STEPS, "True") | {"Verified": "False"},
        norm="174.95",
        verdict="NormExceeded",
        decision="rejected: PolicyRejected",
        message="norm 174.95 exceeds the contract's 12",
    ),
    row("site-e", steps=dict.fromkeys(STEPS, "") | {"Consented": "Unknown"}, norm=None, verdict="", decision="pending"),
)
MANY = a_round(
    *(
        row(
            LONG.format(number),
            norm="123456.123456",
            verdict=LONGEST_REASON,
            validation_examples=999_999,
            decision=f"rejected: {LONGEST_REASON}",
        )
        for number in range(60)
    )
)


def printed(view: RoundView, columns: int) -> list[str]:
    out = io.StringIO()
    Console(width=columns, file=out).print(RoundTable(view))
    return out.getvalue().splitlines()


def test_the_demos_round_in_80_columns() -> None:
    assert [line.rstrip() for line in printed(DEMO, 80)] == [
        SUMMARY,
        "✓ SitesSelected  ✓ ContractSigned  ✓ UpdatesCollected  ✓ Aggregated  ✓ Evaluated",
        "✓ Released",
        "",
        "site    steps    norm  verdict         own quality  release",
        "site-a  ✓✓✓✓✓    6.41  Verified      59 → 60 of 84  adopted",
        "site-d  ✓✓✓✓✗  174.95  NormExceeded  59 → 60 of 84  rejected: PolicyRejected",
        "site-e  …····       –                59 → 60 of 84  pending",
        "",
        "steps: Consented, AttestationValid, Trained, Submitted, Verified",
        "",
        "site-d: norm 174.95 exceeds the contract's 12",
    ]


def test_the_demos_round_in_160_columns_names_every_step() -> None:
    lines = printed(DEMO, 160)
    header = next(line for line in lines if line.startswith("site "))
    steps = ["consented", "valid", "trained", "submitted", "verified"]
    assert header.split() == ["site", "examples", *steps, "norm", "verdict", "own", "quality", "release"]
    assert "attestation" in lines[lines.index(header) - 1]
    assert not any(line.startswith("steps:") for line in lines)


def test_the_grants_of_each_tier_are_below_the_table() -> None:
    grants = [row(f"site-{x}", tier="PlatformObserved", grant="sha256:" + x * 64) for x in "ab"]
    reported = row("site-c", tier="SelfReported", grant="sha256:" + "c" * 64)
    lines = printed(a_round(*grants, reported, row("site-d")), 160)
    assert "attested PlatformObserved, by grant: site-a aaaaaaaaaaaa, site-b bbbbbbbbbbbb" in lines
    assert "attested SelfReported, by grant: site-c cccccccccccc" in lines


@pytest.mark.parametrize("columns", [80, 100, 160])
def test_nothing_is_cut_whatever_the_names_are(columns: int) -> None:
    lines = printed(MANY, columns)
    assert max(map(len, lines)) <= columns
    start = next(n for n, line in enumerate(lines) if line.startswith("site "))
    header, body = lines[start], lines[start + 1 : lines.index("", start)]
    assert [name.strip() for name in header.split("  ") if name.strip()] == COMPACT
    begins = [header.index(name) for name in ("site", "steps")]
    # A cell that goes on in the next line is read from top to bottom.
    assert "".join(line[: begins[1]].strip() for line in body) == "".join(site.site for site in MANY.sites)
    text = "".join("".join(line.split()) for line in body)
    assert text.count("123456.123456") == len(MANY.sites)
    assert "…" not in text
    words = {word for line in body for word in line.split()}
    # Broken before capitals: every piece is a word.
    assert not {word for word in words if len(word) < 3} - {"→", "of"} - {f"{n}-" for n in range(60)}


def test_how_the_round_stands_comes_first_because_a_terminal_may_have_fewer_lines_than_sites() -> None:
    assert printed(MANY, 80)[0] == SUMMARY


def test_a_round_without_sites_is_its_steps() -> None:
    assert not any("verdict" in line for line in printed(a_round(), 80))


@pytest.mark.parametrize(
    ("text", "columns", "lines"),
    [
        ("rejected: PolicyRejected", 30, ["rejected: PolicyRejected"]),
        ("rejected: PolicyRejected", 14, ["rejected:", "PolicyRejected"]),
        ("rejected: KeyPossessionNotProved", 13, ["rejected:", "KeyPossession", "NotProved"]),
        ("the-hospital-of-x", 12, ["the-", "hospital-of-", "x"]),
        ("unbreakable", 4, ["unbreakable"]),
        ("", 8, [""]),
    ],
)
def test_where_text_is_broken(text: str, columns: int, lines: list[str]) -> None:
    assert broken(text, columns).split("\n") == lines


@pytest.mark.parametrize("output", ["table", "wide", "json"])
def test_show(output: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(round_commands, "read", lambda *_: MANY)
    monkeypatch.setattr(sys, "argv", ["concordat", "round", "show", "round-1", "-o", output])
    with pytest.raises(SystemExit, match="0"):
        main()
    out = capsys.readouterr().out
    if output == "json":
        assert json.loads(out)["sites"][0]["site"] == LONG.format(0)
        return
    whole = [line for line in out.splitlines() if LONG.format(59) in line]
    assert len(whole) == (1 if output == "wide" else 0)
    assert max(map(len, out.splitlines())) == (width(MANY) if output == "wide" else 80)
