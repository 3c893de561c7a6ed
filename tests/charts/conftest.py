"""Rendered charts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import yaml

from concordat_devcluster.tools import ensure_tools
from tests.support.helm import VALUES, Helm, Objects


@pytest.fixture(scope="session")
def helm(tmp_path_factory: pytest.TempPathFactory) -> Helm:
    return Helm(ensure_tools() / "helm", tmp_path_factory.mktemp("helm"))


@pytest.fixture(scope="session")
def values() -> Callable[[str], Any]:
    """The values of a profile in values/."""
    return lambda profile: yaml.safe_load((VALUES / f"{profile}.yaml").read_text())


@pytest.fixture(scope="session")
def objects(helm: Helm, values: Callable[[str], Any]) -> Callable[[str], Objects]:
    """The objects of a profile, rendered once."""
    made: dict[str, Objects] = {}

    def of(profile: str) -> Objects:
        if profile not in made:
            chart, namespace = chart_of(profile)
            made[profile] = [o for o in yaml.safe_load_all(helm.render(chart, values(profile), namespace)) if o]
        return made[profile]

    return of


def chart_of(profile: str) -> tuple[str, str]:
    """Chart and namespace of a profile: its name begins with the chart's."""
    kind = profile.partition("-")[0]
    namespace = {"operator": "concordat", "crds": "concordat", "site": profile.removeprefix("site-")}[kind]
    return f"concordat-{kind}", namespace


@pytest.fixture(scope="session")
def locate() -> Callable[[str], tuple[str, str]]:
    """`chart_of`, for tests."""
    return chart_of
