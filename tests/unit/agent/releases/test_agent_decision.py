"""The decision on a release is written down once."""

from __future__ import annotations

from pathlib import Path

from concordat.api import Reason, Release
from concordat_agent.policy import Answer
from concordat_agent.releases.decision import keep, kept
from concordat_agent.workspace import Workspace

REF = {"repository": "digits/adapters", "digest": "sha256:" + "a" * 64}


def _release(uid: str) -> Release:
    spec = {"federation": "digits", "sequence": 1, "base": REF, "adapter": REF}
    return Release.model_validate({"metadata": {"name": "r", "namespace": "site-a", "uid": uid}, "spec": spec})


def test_a_decision_is_kept_for_its_very_object(tmp_path: Path) -> None:
    """Finding 41; and a release that is made again under its name is judged again."""
    workspace = Workspace(tmp_path)
    workspace.prepare("r")
    assert kept(workspace, _release("1")) is None
    answer = Answer.no(Reason.REGRESSION, "Worse.")
    decision = keep(workspace, _release("1"), answer, "sha256:" + "d" * 64)
    assert kept(Workspace(tmp_path), _release("1")) == decision
    assert decision.answer == answer
    assert kept(workspace, _release("2")) is None
