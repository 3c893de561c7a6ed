"""Entry point of an evaluation Job: `python -m concordat_learning.evaluate --base … --task … --data … --out …`."""

from __future__ import annotations

import sys

from concordat.protocol.evaluation import EvaluationEvidence, MeasuredModels, ModelQuality
from concordat_learning import intervals, isolation, results
from concordat_learning.data import VALIDATION, read_examples
from concordat_learning.entry import Folders, run
from concordat_learning.package import read_package
from concordat_learning.task import read_evaluate_task


def job(folders: Folders) -> None:
    """Run the whole Job: prove isolation, then `evaluate_site`."""
    isolation.verify()
    evaluate_site(folders)


def evaluate_site(folders: Folders) -> None:
    """Judge the adapters of the task on the same data and publish; the caller has verified isolation."""
    if results.is_published(folders.out):
        print("an earlier pod of this Job handed over its result already", flush=True)
        return
    task = read_evaluate_task(folders.task)
    examples = read_examples(folders.data / VALIDATION, read_package(folders.base))
    # Only now: wrong inputs are told without waiting for the import.
    from concordat_learning.model import AdaptedModel

    measured: dict[str, ModelQuality] = {}
    for name in task.models:
        correct = AdaptedModel.open(folders.base, folders.task / name).correct(examples)
        found = intervals.wilson(correct, len(examples), task.confidence_ppm)
        measured[name] = ModelQuality(ppm=found.ppm, low_ppm=found.low_ppm, high_ppm=found.high_ppm)
        print(f"{name}: {correct} of {len(examples)} right, {found.low_ppm}..{found.high_ppm} ppm", flush=True)
    evidence = EvaluationEvidence(examples=len(examples), models=MeasuredModels(**measured), isolation="verified")
    results.publish(folders.out, {evidence.FILE: evidence.to_bytes()})


if __name__ == "__main__":
    sys.exit(run(job, "Judge adapters on a site's own validation data, without a network."))
