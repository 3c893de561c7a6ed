"""The Jobs of a round: what they look like, whether one is the expected one, and how it ended. Pure: no I/O."""

from concordat.jobs.build import aggregation_job, aggregation_job_name, evaluation_job, training_job
from concordat.jobs.compare import same_job
from concordat.jobs.outcome import Outcome, failure, outcome
from concordat.jobs.pod import JobError

__all__ = [
    "JobError",
    "Outcome",
    "aggregation_job",
    "aggregation_job_name",
    "evaluation_job",
    "failure",
    "outcome",
    "same_job",
    "training_job",
]
