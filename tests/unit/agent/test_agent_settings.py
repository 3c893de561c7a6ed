"""What the environment must say."""

from __future__ import annotations

import pytest

from concordat.controller.environment import SettingsError
from concordat_agent.settings import Settings

ENV = {"CONCORDAT_SITE": "site-a", "CONCORDAT_REGISTRY_URL": "http://registry:5000"}


def test_settings_from_the_environment() -> None:
    settings = Settings.from_environment({**ENV, "CONCORDAT_HTTP_PORT": "9090"})
    assert (settings.site, settings.registry_url, settings.http_port) == ("site-a", "http://registry:5000", 9090)
    assert settings.history.parent == settings.key.parent
    assert Settings.from_environment(ENV).http_port == 8080


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"CONCORDAT_SITE": ""}, "CONCORDAT_SITE is not set"),
        ({"CONCORDAT_REGISTRY_URL": ""}, "CONCORDAT_REGISTRY_URL is not set"),
        ({"CONCORDAT_HTTP_PORT": "http"}, "CONCORDAT_HTTP_PORT is 'http'"),
        ({"CONCORDAT_HTTP_PORT": "70000"}, "CONCORDAT_HTTP_PORT is '70000'"),
        ({"CONCORDAT_HTTP_PORT": "²"}, "CONCORDAT_HTTP_PORT"),
    ],
)
def test_a_missing_setting_is_named(changes: dict[str, str], says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        Settings.from_environment({**ENV, **changes})
