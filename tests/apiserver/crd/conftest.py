"""The API server with our custom resources and a namespace, for each module."""

from __future__ import annotations

import pytest

from concordat_devcluster.control_plane import ControlPlane
from tests.apiserver.crd.server import NAMESPACE, Api


@pytest.fixture(scope="module")
def api(api_server: ControlPlane) -> Api:
    api_server.apply_crds()
    api = Api(str(api_server.kubeconfig))
    api.send("POST", "/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})
    return api
