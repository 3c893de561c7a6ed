"""The agent's notes are about one very object, and last."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from concordat.api import Reason, Release
from concordat_agent.admission import Admission
from concordat_agent.notes import Notes
from concordat_agent.releases.decision import Decision

REF = {"repository": "digits/adapters", "digest": "sha256:" + "a" * 64}
DECISION = Decision(passed=False, reason=Reason.REGRESSION, message="Worse.", policy_digest="sha256:" + "d" * 64)


def _release(uid: str) -> Release:
    spec = {"federation": "digits", "sequence": 1, "base": REF, "adapter": REF}
    return Release.model_validate({"metadata": {"name": "r", "namespace": "site-a", "uid": uid}, "spec": spec})


def test_a_note_is_about_its_very_object_and_of_its_kind(tmp_path: Path) -> None:
    """Finding 41; and a release that is made again under its name is judged again."""
    notes = Notes(tmp_path / "notes")
    assert notes.of(_release("1"), Decision) is None
    notes.keep(_release("1"), DECISION)
    assert Notes(tmp_path / "notes").of(_release("1"), Decision) == DECISION
    assert DECISION.answer.reason is Reason.REGRESSION
    assert notes.of(_release("2"), Decision) is None
    assert notes.of(_release("1"), Admission) is None


def test_notes_go_with_their_objects(tmp_path: Path) -> None:
    notes = Notes(tmp_path / "notes")
    notes.tidy(set())
    for uid in ("1", "2"):
        notes.keep(_release(uid), DECISION)
        notes.keep(_release(uid), Admission(job_uid="j"))
    notes.tidy({"2"})
    assert sorted(os.listdir(tmp_path / "notes")) == ["2.admission.json", "2.decision.json"]


def test_a_damaged_note_is_not_taken_for_none(tmp_path: Path) -> None:
    """Then the agent stops at it: what it decided would be decided again."""
    notes = Notes(tmp_path)
    (tmp_path / "1.decision.json").write_bytes(b"{")
    with pytest.raises(ValidationError):
        notes.of(_release("1"), Decision)
