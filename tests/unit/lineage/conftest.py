"""The builders of chains of statements."""

from __future__ import annotations

import pytest

from tests.support.lineage import Make


@pytest.fixture(scope="session")
def make() -> Make:
    return Make()
