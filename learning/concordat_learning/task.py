"""What a Job is to do: task.json, and for training contract.json, as the site's agent staged them."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from concordat.protocol.contract import Contract
from concordat.protocol.document import Document, DocumentError
from concordat.protocol.evaluation import EvaluationTask
from concordat.protocol.training import TrainingTask
from concordat_learning.errors import InputError
from concordat_learning.fields import read_file

D = TypeVar("D", bound=Document)


def read_train_task(folder: Path) -> tuple[str, Contract]:
    """Read task.json and contract.json of a training Job: the site, and what it agreed to. Raises InputError."""
    site, contract = _read(folder, TrainingTask).site, _read(folder, Contract)
    if contract.site(site) is None:
        raise InputError(f"{folder / Contract.FILE}: sites does not name {site!r}; the contract is for other sites")
    return site, contract


def read_evaluate_task(folder: Path) -> EvaluationTask:
    """Read task.json of an evaluation Job. Raises InputError."""
    return _read(folder, EvaluationTask)


def _read(folder: Path, document: type[D]) -> D:
    data = read_file(folder / document.FILE, document.LIMIT)
    try:
        return document.from_bytes(data)
    except DocumentError as error:
        raise InputError(f"{folder}/{error}") from None
