"""What the command line waits for, and when it stops waiting because that cannot come true any more."""

from __future__ import annotations

import json
from typing import Any

import pytest

from concordat_cli import kube as waiting
from concordat_cli.demo import install, roster
from concordat_cli.errors import UserError
from concordat_cli.kube import Kube
from concordat_devcluster.control_plane import ControlPlane

SPACE = roster.EVALUATOR


@pytest.fixture(scope="module")
def kube(api_server: ControlPlane) -> Kube:
    found = Kube(api_server.kubeconfig, tools=api_server.tools)
    found.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SPACE}})
    found.run("kubectl", "wait", "-n", SPACE, "--for=create", "serviceaccount/default", "--timeout=600s")
    return found


def template(image: str) -> dict[str, Any]:
    return {"restartPolicy": "Never", "containers": [{"name": "main", "image": image}]}


def test_a_wait_ends_when_an_image_cannot_be_pulled(kube: Kube, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "_UNPULLED_SECONDS", 0)
    metadata = {"name": "unpulled", "namespace": SPACE}
    kube.apply({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template("nowhere.invalid/a")})
    assert kube.unpulled() is None
    state = {"waiting": {"reason": "ImagePullBackOff", "message": "no such host"}}
    container = {"name": "main", "image": "nowhere.invalid/a", "imageID": "", "ready": False, "restartCount": 0}
    status = json.dumps({"status": {"containerStatuses": [{**container, "state": state}]}})
    kube.run("kubectl", "patch", "-n", SPACE, "pod/unpulled", "--subresource=status", "--type=merge", "-p", status)
    with pytest.raises(UserError, match=r"for the sites \(pod unpulled in evaluator: ImagePullBackOff: no such host\)"):
        kube.wait("the sites", lambda: False)
    assert kube.wait("what is there", lambda: "this") == "this"
    kube.run("kubectl", "delete", "-n", SPACE, "pod/unpulled", "--grace-period=0", "--force")


def test_the_wait_for_the_data_ends_when_one_of_the_jobs_has_failed(kube: Kube) -> None:
    metadata = {"name": "demo-data", "namespace": SPACE}
    # The controller fails it: its pod never runs, for there is no node.
    spec = {"activeDeadlineSeconds": 1, "template": {"spec": template("nowhere.invalid/a")}}
    kube.apply({"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": spec})
    with pytest.raises(UserError, match=r"the data of evaluator on its volume failed; look with: .*job/demo-data"):
        install.wait_for_data(kube)
