"""The decision on a release as the agent keeps it: taken once, whatever happens before it is shown."""

from __future__ import annotations

from pydantic import ConfigDict

from concordat.api import Reason, Release
from concordat.api.types import Model
from concordat_agent.policy import Answer
from concordat_agent.workspace import Workspace

_NOTE = "decision"


class Decision(Model):
    """What was decided on one Release object, and by which policy."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    release_uid: str
    passed: bool
    reason: Reason
    message: str
    policy_digest: str

    @property
    def answer(self) -> Answer:
        """Return the decision in the site's words."""
        return Answer(self.passed, self.reason, self.message)


def keep(workspace: Workspace, release: Release, answer: Answer, policy_digest: str) -> Decision:
    """Write a decision down beside the inputs of the release's Job, and return it. Raises OSError."""
    decision = Decision(
        release_uid=release.metadata.uid,
        passed=answer.passed,
        reason=answer.reason,
        message=answer.message,
        policy_digest=policy_digest,
    )
    workspace.write_note(release.metadata.name, _NOTE, decision.wire())
    return decision


def kept(workspace: Workspace, release: Release) -> Decision | None:
    """Return the decision on this very object, or None; one on an earlier object of its name does not count."""
    note = workspace.note(release.metadata.name, _NOTE)
    decision = Decision.model_validate(note) if note else None
    return decision if decision is not None and decision.release_uid == release.metadata.uid else None
