"""The Jobs of a round: what they look like, whether one is the expected one, and how it ended. Pure: no I/O."""

from concordat.jobs.build import aggregation_job, aggregation_job_name, evaluation_job, training_job
from concordat.jobs.compare import same_job
from concordat.jobs.outcome import Failure, Outcome, answers_soon, failure, outcome
from concordat.jobs.pending import PATIENCE, is_suspended, look_after, pending
from concordat.jobs.pod import JobError
from concordat.jobs.pod_status import ended, own_pods

__all__ = [
    "PATIENCE",
    "Failure",
    "JobError",
    "Outcome",
    "aggregation_job",
    "aggregation_job_name",
    "answers_soon",
    "ended",
    "evaluation_job",
    "failure",
    "is_suspended",
    "look_after",
    "outcome",
    "own_pods",
    "pending",
    "same_job",
    "training_job",
]
