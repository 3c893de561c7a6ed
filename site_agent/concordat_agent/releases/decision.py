"""The agent's notes on a release: what its Job was given to measure, and what was decided."""

from __future__ import annotations

from pydantic import ConfigDict

from concordat.api import Reason
from concordat.api.types import ArtifactRef, Model
from concordat.protocol.evaluation import EvaluationTask, ModelName
from concordat_agent.policy import Answer


class Compared(Model):
    """The models that were staged for a release's Job."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    models: dict[ModelName, ArtifactRef]
    champion: str | None = None
    """The release that was in use then."""
    confidence_ppm: int

    @property
    def task(self) -> EvaluationTask:
        """Return what the Job is told to do."""
        return EvaluationTask(models=list(self.models), confidence_ppm=self.confidence_ppm)


class Decision(Model):
    """What was decided on a release, once, whatever happens before it is shown; and by which policy."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    passed: bool
    reason: Reason
    message: str
    policy_digest: str

    @property
    def answer(self) -> Answer:
        """Return the decision in the site's words."""
        return Answer(self.passed, self.reason, self.message)
