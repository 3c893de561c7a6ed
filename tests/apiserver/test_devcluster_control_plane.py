"""The control plane that the API tests stand on."""

from __future__ import annotations

import json

import pytest

from concordat_devcluster.control_plane import ControlPlane
from concordat_devcluster.errors import DevclusterError


def test_it_serves_as_administrator(api_server: ControlPlane) -> None:
    version = json.loads(api_server.kubectl("version", "-o", "json"))["serverVersion"]
    assert (version["major"], version["minor"]) == ("1", "36")


def test_rbac_is_on(api_server: ControlPlane) -> None:
    nobody = api_server.kubeconfig_for("nobody", "strangers")
    with pytest.raises(DevclusterError, match='User "nobody" cannot list resource "secrets"'):
        api_server.kubectl(f"--kubeconfig={nobody}", "get", "secrets")


def test_controllers_run(api_server: ControlPlane) -> None:
    api_server.kubectl("create", "namespace", "controllers-run")
    api_server.kubectl("wait", "-n", "controllers-run", "--for=create", "serviceaccount/default", "--timeout=300s")
    api_server.kubectl("delete", "namespace", "controllers-run", "--timeout=300s")
