"""A real API server for the tests of this folder, one for the session."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from concordat_devcluster.control_plane import ControlPlane


@pytest.fixture(scope="session")
def api_server() -> Iterator[ControlPlane]:
    """etcd, kube-apiserver and kube-controller-manager: `.kubeconfig`, `.kubectl(...)`, `.apply_crds()`."""
    with ControlPlane() as control_plane:
        yield control_plane
