"""The builders of the hub's objects."""

from __future__ import annotations

import pytest

from tests.support.hub import Make


@pytest.fixture(scope="session")
def make() -> Make:
    """The builders."""
    return Make()
