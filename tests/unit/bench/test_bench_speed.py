"""The speed benchmark: that every operation runs, on tiny updates, and what the tables say of made-up times."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.speed import job, operations
from bench.speed.inputs import read, write
from bench.speed.report import Cell, Measured, Plan, report, targets
from bench.speed.worker import measure

PLAN = Plan(size=20_000, threads=2)
PEERS = tuple(operations.PEERS)


def cell(seconds: float) -> Cell:
    return Cell([seconds, 2 * seconds, seconds], [3 * seconds], 5 << 20, [0.5])


def made_up(seconds: dict[tuple[str, int, str, int], float]) -> Measured:
    """Every cell that there may be, of one second each but for these."""
    found: Measured = {}
    for n in (*PLAN.updates, PLAN.many):
        for operation in (*operations.OPERATIONS, operations.CAF_WEIGHTS):
            for threads in (1, 2):
                found |= {(name, threads, operation, n): cell(1) for name in (operations.OURS, *PEERS)}
        for what in (operations.READ, operations.SGEMM):
            found[operations.MACHINE, 2, what, n] = cell(1)
    found |= {(operations.JOB, 2, operation, 16): cell(1) for operation in job.OPERATIONS}
    return found | {key: cell(value) for key, value in seconds.items()}


def test_the_targets_are_those_of_the_issue_and_say_met_or_missed(tmp_path: Path) -> None:
    measured = made_up(
        {
            (operations.OURS, 1, operations.TRIMMED, 16): 0.25,
            (operations.OURS, 1, operations.TRIMMED, 64): 0.26,
            (operations.OURS, 2, operations.NNM_TRIMMED, 64): 1.5,
            (operations.JOB, 2, job.WHOLE, 16): 3.1,
            (operations.OURS, 2, operations.CAF_WEIGHTS, 16): 0.9,
        }
    )
    found = [(t.what, t.asked, t.met) for t in targets(measured, PLAN)]
    assert found == [
        ("trimmed mean, N = 16, one thread each: times faster than ByzFL on numpy", 4, True),
        ("trimmed mean, N = 64, one thread each: times faster than ByzFL on numpy", 4, False),
        ("NNM + trimmed mean, N = 64, P = 0.02 M: seconds", 1.5, True),
        ("the whole aggregator, N = 16, P = 0.02 M: times its reads and writes", 3, False),
        ("CAF's weights, N = 256: seconds", 1, True),
    ]


def test_the_report_names_threads_and_the_seconds_of_processors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # The peers are not installed here.
    monkeypatch.setattr("bench.speed.report.about", lambda *packages: [f"with {', '.join(packages)}"])
    report(tmp_path / "speed.md", made_up({}), PLAN, 60)
    text = (tmp_path / "speed.md").read_text()
    assert "- with torch, byzfl, flwr" in text
    assert "## N = 64, 2 threads" in text
    assert "## Trimmed mean with one thread" in text
    assert "| the Job, ARC + DnC | 1.000 | 3.000 | 5 | 1.0 |" in text
    assert "| mean | 2.0 | 1.000 | 3.000 | 5 |" in text
    assert capsys.readouterr().out.count("missed") == 2
    few = {key: value for key, value in made_up({}).items() if key[0] not in PEERS}
    report(tmp_path / "ours.md", few, PLAN, 60)
    assert "ByzFL, torch" not in (tmp_path / "ours.md").read_text()


@pytest.fixture
def inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    write(tmp_path / "inputs", 6, PLAN.size)
    return tmp_path / "inputs"


def test_every_operation_of_ours_runs(inputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.speed.operations.CAF_UPDATES", 8)
    updates = read(inputs, 8)
    made = operations.concordat(updates) | operations.machine(updates)
    assert {*operations.OPERATIONS, operations.CAF_WEIGHTS, operations.READ, operations.SGEMM} == made.keys()
    for operation in made.values():
        found = measure(operation, once=True)
        assert (len(found["seconds"]), len(found["cpu"])) == (1, 1)


def test_every_operation_of_the_job_ends_with_a_candidate_and_leaves_nothing(inputs: Path) -> None:
    before = sorted(inputs.iterdir())
    made = job.operations(read(inputs, 6), inputs)
    assert tuple(made) == job.OPERATIONS
    for operation in made.values():
        operation()
    assert sorted(inputs.iterdir()) == before
