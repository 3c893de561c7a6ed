"""What is told of a start that fails."""

from __future__ import annotations

import pytest

from concordat_devcluster import cluster
from concordat_devcluster.errors import DevclusterError


def test_a_clean_up_that_fails_does_not_hide_why_it_was_needed() -> None:
    def undo() -> None:
        raise DevclusterError("the group still has processes")

    with (
        pytest.raises(DevclusterError, match=r"(?s)kubelet was not ready.*stopping it failed as well: the group still"),
        cluster._undone_on_failure(undo),
    ):
        raise DevclusterError("kubelet was not ready")


def test_an_interrupted_start_is_undone() -> None:
    undone: list[bool] = []
    with pytest.raises(KeyboardInterrupt), cluster._undone_on_failure(lambda: undone.append(True)):
        raise KeyboardInterrupt
    assert undone
