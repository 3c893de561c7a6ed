"""A new site from nothing, by the three commands of docs/install.md, as its people and the hub's would type them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from concordat.api import ConditionType, Membership, Site, is_true
from concordat_cli.demo.install import CHARTS, site_values
from concordat_cli.demo.roster import HUB
from tests.e2e.federation import Federation
from tests.support.presence import condition, present

NEW = "site-new"
CONCORDAT = Path(sys.executable).with_name("concordat")


@pytest.mark.attack("a Site that nobody accepted, on the real node", "hub, Membership", "NotAMember")
def test_a_new_site_is_a_member_after_three_commands(federation: Federation, tmp_path: Path) -> None:
    kube = federation.kube
    # 1. The hub's public keys, which the site's people put into their values.
    trust = kube.run("kubectl", "get", "configmap", "concordat-trust", "-n", HUB, "-o", r"jsonpath={.data.trust\.json}")
    values = tmp_path / "my-site.yaml"
    values.write_text(yaml.safe_dump(site_values("site-a", federation.target.images, json.loads(trust))))
    try:
        # 2. The site's people install, and read the key of their agent.
        chart = ("concordat-site", str(CHARTS / "concordat-site"), "-n", NEW, "--create-namespace")
        kube.run("helm", "install", *chart, "-f", str(values), "--wait", "--timeout=300s")
        log = kube.run("kubectl", "logs", "-n", NEW, "deployment/concordat-agent")
        key = present(re.search(r"SHA256:[A-Za-z0-9+/]{43}", log))[0]

        def shown() -> bool:
            site = kube.get(Site, NEW, NEW)
            return site is not None and site.status.agent is not None and bool(site.status.conditions)

        kube.wait("the new site to show its key", shown)
        site = present(kube.get(Site, NEW, NEW))
        assert condition(site.status.conditions, ConditionType.ACCEPTED).reason == "NotAMember"
        # 3. The hub's people accept it.
        accept = [str(CONCORDAT), "site", "accept", NEW, "--kubeconfig", str(kube.kubeconfig), "--key"]
        wrong = subprocess.run([*accept, "SHA256:" + "A" * 43], capture_output=True, text=True, check=False)
        assert wrong.returncode != 0
        assert "do not accept it before you know why" in wrong.stderr
        done = subprocess.run([*accept, key], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (0, f"{NEW} is a member, by the key {key}, in digits.\n"), done.stderr

        def ready() -> bool:
            return is_true(present(kube.get(Site, NEW, NEW)).status.conditions, ConditionType.READY)

        kube.wait("the new site to be Ready", ready)
        assert present(kube.get(Membership, HUB, NEW)).spec.keys[0].public_key.startswith("-----BEGIN PUBLIC KEY")
    finally:
        kube.run("kubectl", "delete", "membership", NEW, "-n", HUB, "--ignore-not-found")
        kube.run("kubectl", "delete", "namespace", NEW, "--ignore-not-found")
