"""The builders of Jobs."""

from __future__ import annotations

import pytest

from tests.support.jobs import Make


@pytest.fixture(scope="session")
def make() -> Make:
    return Make()
