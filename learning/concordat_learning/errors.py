"""Why a Job ends without a result. The exit code is what the operator tells reasons apart by."""

from __future__ import annotations

from typing import ClassVar

BUG = 70
"""Exit code of any exception that is none of these."""


class LearningError(Exception):
    """A Job cannot produce its result. The message names file, field, value and remedy."""

    code: ClassVar[int] = BUG


class InputError(LearningError):
    """The contract, the task, the base package or an adapter is not usable; a retry does not help."""

    code = 64


class DataError(LearningError):
    """The site's data is not usable; a retry does not help."""

    code = 65


class NotIsolated(LearningError):
    """The Job has a network, or cannot prove that it has none."""

    code = 71


class TransientError(LearningError):
    """The machine failed the Job, not its inputs; a retry may help."""

    code = 75
