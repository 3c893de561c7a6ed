"""Whole rounds on a real node. They share one federation and run in the order of this file."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from concordat.api import Condition, ConditionType, Membership, Site, find, is_true
from concordat.report.round_view import RoundView
from concordat_cli.demo.install import CHARTS, site_values
from concordat_cli.demo.roster import HOSTILE, HUB, SITES
from concordat_cli.errors import UserError
from concordat_cli.kube import PATIENCE_SECONDS
from tests.e2e.federation import Federation
from tests.support.presence import condition, present

NEW = "site-new"
CONCORDAT = Path(sys.executable).with_name("concordat")
TIMEOUT = f"--timeout={PATIENCE_SECONDS:.0f}s"


def _kill_operator(federation: Federation) -> None:
    federation.kube.run(
        "kubectl", "delete", "pod", "-n", HUB, "-l", "app.kubernetes.io/name=concordat-operator",
        "--grace-period=0", "--force",
    )  # fmt: skip


def test_a_wrong_field_is_refused_with_its_name(federation: Federation) -> None:
    with pytest.raises(UserError, match=r"spec\.qourum"):
        federation.apply("typo", qourum=3)
    with pytest.raises(UserError, match=r"spec\.quorum"):
        federation.apply("zero", quorum=0)


def test_a_round_survives_three_kills_of_the_operator(federation: Federation) -> None:
    federation.apply("killed")

    def contracted() -> bool:
        return federation.round("killed").status.contract is not None

    def training() -> bool:
        return any(find(u.status.conditions, ConditionType.TRAINED) for u in federation.updates("killed").values())

    def collected() -> bool:
        return is_true(federation.round("killed").status.conditions, ConditionType.UPDATES_COLLECTED)

    for what, reached in (("the contract", contracted), ("training", training), ("all updates", collected)):
        federation.until("killed", what, reached)
        _kill_operator(federation)
    view = federation.settle("killed")

    _judged_as_on_every_processor(federation, view)
    # One candidate only, and each site trained once: nothing was done twice.
    assert len(federation.releases(present(view.release))) == len(SITES) + 2
    champions = federation.champions()
    assert champions["site-a"] == view.release
    assert champions["site-e"] is None


def _judged_as_on_every_processor(federation: Federation, view: RoundView) -> None:
    """Decisions of which docs/development.md says how far they are from their thresholds."""
    assert view.steps["Succeeded"] == "True", view.message
    by_site = {r.site: r for r in view.sites}
    assert set(by_site) == set(SITES)
    assert by_site[HOSTILE].verdict == "NormExceeded"
    assert [r.verdict for r in view.sites if r.site != HOSTILE] == ["Verified"] * 4
    assert by_site["site-a"].decision == "adopted", by_site["site-a"].message
    assert by_site["site-e"].decision == "rejected: PolicyRejected", by_site["site-e"].message
    evaluation = present(federation.round(view.name).status.evaluation)
    assert evaluation.candidate_ppm > evaluation.parent_ppm


def test_kubectl_behaves_as_a_user_expects(federation: Federation) -> None:
    kube = federation.kube
    kube.run("kubectl", "wait", "-n", HUB, "fround/killed", "--for=condition=Succeeded", TIMEOUT)
    listing = kube.run("kubectl", "get", "fround,fupd,frel,fsite,fchan", "-A")
    for word in ("federationround.concordat.dev/killed", "NormExceeded", "Released", "stable"):
        assert word in listing
    described = kube.run("kubectl", "describe", "fround", "killed", "-n", HUB)
    assert "ContractSigned" in described
    name = next(iter(federation.updates("killed").values())).metadata.name
    logs = kube.run("kubectl", "logs", "-n", "site-a", f"job/{name}")
    assert "loss" in logs
    assert "Update" in kube.run("kubectl", "explain", "update.spec")


def test_what_the_node_reports_of_each_site_is_in_its_grant(federation: Federation) -> None:
    """Each update counts by what the kubelet says of the agent's pod and of the trainer's."""
    rows = federation.settle("killed").sites
    assert {row.site: row.tier for row in rows} == dict.fromkeys(SITES, "PlatformObserved")
    assert len({row.grant for row in rows}) == len(SITES)


TRIES = """
import asyncio
from concordat.artifacts import Access, ArtifactError, RegistryStore
from concordat.lineage import Trust

async def main():
    trust = Trust.from_json(open("/etc/concordat/trust.json").read())
    url = "https://concordat-gateway.concordat.svc"
    for access in (Access.of_pod(trust.gateway_ca), Access(ca=trust.gateway_ca), Access.of_pod()):
        async with RegistryStore(url, sleep=lambda _: asyncio.sleep(0), access=access) as store:
            for repository in {repositories!r}:
                try:
                    print(len((await store.push(repository, "x/y", {{"a": b"a"}})).digest))
                except ArtifactError as error:
                    print(" ".join(str(error).split()))

asyncio.run(main())
"""


@pytest.mark.attack("F3: a site's pod, to another's slot, with no token, past the gateway", "gateway", "DENIED")
def test_a_site_reaches_its_own_slot_of_the_registry_and_nothing_else(federation: Federation) -> None:
    """Security finding F3, from within the agent's own pod."""
    uid = federation.round("killed").metadata.uid
    over, other = (f"digits/rounds/{uid}/{site}" for site in ("site-a", "site-b"))
    script = TRIES.format(repositories=["digits/decisions/site-a", other, over])
    said = federation.kube.run(
        "kubectl", "exec", "-n", "site-a", "deployment/concordat-agent", "--", "python", "-c", script
    ).splitlines()
    assert said[0] == "71"
    assert f'403 {{"errors": [{{"code": "DENIED", "message": "site site-a may not push {other}"' in said[1]
    assert f'403 {{"errors": [{{"code": "DENIED", "message": "no round with uid {uid} is open"' in said[2]
    assert all("401" in line for line in said[3:6])
    assert all("CERTIFICATE_VERIFY_FAILED" in line for line in said[6:9])
    # The registry itself listens to its gateway only.
    pod = ("pod", "-n", HUB, "concordat-registry-0", "-o", "jsonpath={.status.podIP}")
    address = federation.kube.run("kubectl", "get", *pod)
    dial = f"import socket; socket.create_connection(({address!r}, 5000), 10)"
    agent = ("-n", "site-a", "deployment/concordat-agent")
    with pytest.raises(UserError, match="Connection refused"):
        federation.kube.run("kubectl", "exec", *agent, "--", "python", "-c", dial)


def test_the_next_round_trains_on_another_processor_and_is_judged_alike(federation: Federation) -> None:
    federation.allow(federation.other_image)
    federation.apply("elsewhere", recipe={"image": federation.other_image})
    view = federation.settle("elsewhere")
    _judged_as_on_every_processor(federation, view)


def test_a_contracted_round_cannot_change(federation: Federation) -> None:
    with pytest.raises(UserError, match="the contract is signed"):
        federation.patch("killed", quorum=4)


def test_a_stalled_round_recovers_and_then_fails_below_quorum_without_touching_a_champion(
    federation: Federation,
) -> None:
    before = federation.champions()
    # Every site's policy allows 500 steps: all of them will decline.
    federation.apply("stalled", quorum=9, budget={"maxSteps": 600})

    def stalled() -> bool:
        found = find(federation.round("stalled").status.conditions, ConditionType.STALLED)
        return found is not None and found.reason == "QuorumUnreachable"

    federation.until("stalled", "QuorumUnreachable", stalled)
    federation.patch("stalled", quorum=3)
    view = federation.settle("stalled")
    assert view.steps["Succeeded"] == "False"
    status = federation.round("stalled").status
    failed = condition(status.conditions, "Succeeded")
    assert failed.reason == "QuorumNotReached"
    # The round ends with the refusal that makes the quorum unreachable: the other sites need not have answered by then.
    declined = {out.site for out in status.dropped_sites}
    assert {out.reason for out in status.dropped_sites} == {"PolicyRefused"}
    assert len(declined) >= 3
    left, named = failed.message.split(", quorum is 3: ")
    for site in SITES:
        assert (f"{site} (Consented: PolicyRefused)" in named) == (site in declined), failed.message
        assert (site in left) == (site not in declined), failed.message
    assert federation.champions() == before


def test_an_unknown_parent_stalls_the_round(federation: Federation) -> None:
    federation.apply("orphan", parent={"channelRef": None, "releaseRef": {"name": "nothing"}})

    def stalled() -> bool:
        found = find(federation.round("orphan").status.conditions, ConditionType.STALLED)
        return found is not None and found.reason == "ParentNotFound" and "nothing" in found.message

    federation.until("orphan", "ParentNotFound", stalled)
    federation.kube.run("kubectl", "delete", "fround", "orphan", "-n", HUB, TIMEOUT)


def test_a_training_pod_out_of_memory_is_told_apart(federation: Federation) -> None:
    federation.apply("starved", budget={"memory": "48Mi"})
    view = federation.settle("starved")
    assert view.steps["Succeeded"] == "False"

    def reasons() -> list[str]:
        found = [find(u.status.conditions, ConditionType.TRAINED) for u in federation.updates("starved").values()]
        return [trained.reason for trained in found if trained is not None]

    # The third failure ends the round, which then stops the Jobs that still run.
    federation.kube.wait("the last Jobs to end", lambda: "Training" not in reasons())
    assert set(reasons()) <= {"OOMKilled", "Stopped"}
    assert reasons().count("OOMKilled") >= 3


def test_the_whole_cluster_goes_down_and_up_in_the_middle_of_a_suspended_and_resumed_round(
    federation: Federation,
) -> None:
    # A short training: whether it learns is not what this is about.
    federation.apply("rebooted", suspend=True, budget={"maxSteps": 50}, evaluation={"minImprovementPpm": -50_000})

    def suspended() -> bool:
        return is_true(federation.round("rebooted").status.conditions, ConditionType.SUSPENDED)

    federation.until("rebooted", "Suspended", suspended)
    assert federation.round("rebooted").status.contract is None
    federation.patch("rebooted", suspend=False)

    def training() -> bool:
        return any(find(u.status.conditions, ConditionType.TRAINED) for u in federation.updates("rebooted").values())

    federation.until("rebooted", "training", training)
    federation.target.restart()
    view = federation.settle("rebooted")
    assert view.steps["Succeeded"] == "True", view.message
    sequences = {r.spec.sequence for r in federation.releases(present(view.release)).values()}
    assert sequences == {3}


def test_deleting_a_round_removes_what_it_made(federation: Federation) -> None:
    assert federation.updates("starved")
    uid = federation.round("starved").metadata.uid
    federation.kube.run("kubectl", "delete", "fround", "starved", "-n", HUB, TIMEOUT)
    left = federation.kube.run(
        "kubectl", "get", "fupd,jobs", "-A", "-l", f"concordat.dev/round-uid={uid}", "-o", "name"
    )
    assert left.strip() == ""


def test_no_site_declined_for_another_reason_than_its_policy(federation: Federation) -> None:
    def answers() -> list[Condition | None]:
        return [
            find(update.status.conditions, ConditionType.CONSENTED) for update in federation.updates("stalled").values()
        ]

    federation.kube.wait("the answers of sites that had not given them when the round ended", lambda: all(answers()))
    assert {(answer.is_false, answer.reason) for answer in map(present, answers())} == {(True, "PolicyRefused")}


@pytest.mark.attack("a Site that nobody accepted, on the real node", "hub, Membership", "NotAMember")
def test_a_new_site_is_a_member_after_three_commands(federation: Federation, tmp_path: Path) -> None:
    """From nothing, as docs/install.md says; here because one worker must run all that uses this federation."""
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
