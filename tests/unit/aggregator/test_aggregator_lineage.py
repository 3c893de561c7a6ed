"""Whatever is admitted to the aggregate, `verify_candidate` accepts: the aggregator, the hub's signing and the lineage
in a row, for sites that lie in any way in what they sign or name.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from concordat.api.attestation import Evidence
from concordat.api.conditions import Reason
from concordat.api.types import ArtifactRef
from concordat.lineage import Lineage, LineageError, verify_candidate
from concordat.protocol import artifact_types as types
from concordat.protocol.aggregation import AggregationReport, AggregationRequest, SubmittedUpdate
from concordat.protocol.canonical import sha256_digest
from concordat.protocol.contract import Contract
from concordat.protocol.locations import round_repository, site_repository
from concordat.statements import names, sign, unverified
from concordat.statements.grant import Purpose
from concordat.statements.provenance import LocalUpdate, update_provenance
from concordat.statements.summary import consent
from concordat.tensors import Tensors, write_tensors
from concordat_aggregator import job
from concordat_operator.keys import Keys
from concordat_operator.rounds.aggregation_result import confirm
from concordat_operator.signing import publish_contract, publish_verdicts
from tests.fakes.registry import MemoryRegistry
from tests.support.contracts import contract
from tests.support.grants import grant
from tests.support.lineage import AGGREGATOR, AT, GATEWAY, HUB, entry, key_of
from tests.support.presence import present

SITES = ("site-a", "site-b", "site-c", "site-d")
UID = "0123abcd-1"
OTHER = "sha256:" + "9" * 64
A, B = "vit.layer.0.lora_A.weight", "vit.layer.0.lora_B.weight"
PARENT: Tensors = {A: np.eye(2, 4, dtype=np.float32), B: np.zeros((4, 2), np.float32)}
KEYS = Keys(contract=key_of(HUB), aggregation=key_of(AGGREGATOR), gateway=(key_of(GATEWAY).public,))


@dataclass
class Sent:
    """What one site signs and names; a lie changes it. The update names the consent as it was signed."""

    site: str
    contract: Contract
    digest: str
    consent: dict[str, Any] = field(init=False)
    consent_signer: str = field(init=False)
    update: dict[str, Any] = field(init=False)
    update_signer: str = field(init=False)
    rename: Callable[[dict[str, Any]], None] | None = None
    """Change of the update after it has named the consent."""
    wrap_consent: Callable[[bytes], bytes] = bytes
    wrap_update: Callable[[bytes], bytes] = bytes
    grant: dict[str, Any] = field(init=False)
    grant_signer: str | None = GATEWAY
    place: Callable[[dict[str, SubmittedUpdate], str], SubmittedUpdate] = lambda all_, site: all_[site]
    """What the site's status names, given what every site pushed."""

    def __post_init__(self) -> None:
        values = np.random.default_rng(SITES.index(self.site)).normal(scale=0.1, size=(4, 2))
        self.delta = write_tensors({B: values.astype(np.float32)})
        self.consent_signer = self.update_signer = self.site
        self.consent = consent(
            site=self.site,
            round_uid=UID,
            contract_digest=self.digest,
            policy_digest=sha256_digest(b"policy"),
            passed=True,
            reason="Consented",
            at=AT,
        ).statement()
        digest = sha256_digest(self.delta)
        self.grant = grant(self.site, self.contract, self.digest, digest, AT).statement()
        made = LocalUpdate(
            sha256=digest,
            consent_id=OTHER,
            grant_id=OTHER,
            steps=1,
            examples=1,
            norm="0.1",
            clipped=False,
            finished=AT,
        )
        self.update = update_provenance(self.site, self.contract, self.digest, made).statement()

    async def push(self, registry: MemoryRegistry) -> SubmittedUpdate:
        """Sign and push; returns what an honest status would name."""
        slot = site_repository("digits", UID, self.site)
        consent_line = sign(self.consent, key_of(self.consent_signer))
        _role("consent", unverified(consent_line).id)(self)
        grant_line = sign(self.grant, key_of(self.grant_signer or GATEWAY))
        _role("grant", unverified(grant_line).id)(self)
        granted = {types.GRANT_FILE: grant_line} if self.grant_signer is not None else {}
        if self.rename is not None:
            self.rename(self.update)
        update_line = sign(self.update, key_of(self.update_signer))

        async def statement(data: bytes, beside: dict[str, bytes] | None = None) -> ArtifactRef:
            return await registry.push(slot, types.STATEMENT, {types.STATEMENT_FILE: data, **(beside or {})})

        return SubmittedUpdate(
            site=self.site,
            artifact=await registry.push(slot, types.UPDATE, {types.DELTA_FILE: self.delta}),
            statement=await statement(self.wrap_update(update_line), granted),
            consent=await statement(self.wrap_consent(consent_line)),
        )


Lie = Callable[[Sent], None]


def _dependencies(statement: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = statement["predicate"]["buildDefinition"]["resolvedDependencies"]
    return found


def _role(role: str, digest: str) -> Lie:
    def lie(sent: Sent) -> None:
        for dependency in _dependencies(sent.update):
            if dependency["annotations"]["role"] == role:
                dependency["digest"] = {"sha256": digest.removeprefix("sha256:")}

    return lie


def _renamed(change: Callable[[dict[str, Any]], None]) -> Lie:
    return lambda sent: setattr(sent, "rename", change)


def _more(role: str) -> Callable[[dict[str, Any]], None]:
    entry = {"digest": {"sha256": OTHER[7:]}, "annotations": {"role": role}}
    return lambda update: _dependencies(update).append(entry)


def _only(*roles: str) -> Callable[[dict[str, Any]], None]:
    def change(update: dict[str, Any]) -> None:
        kept = [d for d in _dependencies(update) if d["annotations"]["role"] in roles]
        update["predicate"]["buildDefinition"]["resolvedDependencies"] = kept

    return change


def _wrong_consent(update: dict[str, Any]) -> None:
    for dependency in _dependencies(update):
        if dependency["annotations"]["role"] == "consent":
            dependency["digest"] = {"sha256": "0" * 64}


def _said(member: str, value: Any) -> Lie:
    return lambda sent: sent.consent["predicate"][names.DECISION].__setitem__(member, value)


def _of_consent(**changes: Any) -> Lie:
    return lambda sent: sent.consent["predicate"].update(changes)


def _parameter(name: str, value: Any) -> Lie:
    def lie(sent: Sent) -> None:
        sent.update["predicate"]["buildDefinition"]["externalParameters"][name] = value

    return lie


def _subject(part: str, digest: str) -> Lie:
    return lambda sent: getattr(sent, part)["subject"][0].update(digest={"sha256": digest[7:]})


def _set(**members: Any) -> Lie:
    def lie(sent: Sent) -> None:
        for name, value in members.items():
            setattr(sent, name, value)

    return lie


def _placed(**changes: Any) -> Lie:
    return _set(place=lambda all_, site: all_[site].model_copy(update=changes))


def _neighbours(part: str) -> Lie:
    def place(all_: dict[str, SubmittedUpdate], site: str) -> SubmittedUpdate:
        neighbour = SITES[(SITES.index(site) + 1) % len(SITES)]
        return all_[site].model_copy(update={part: getattr(all_[neighbour], part)})

    return _set(place=place)


def _exchanged(all_: dict[str, SubmittedUpdate], site: str) -> SubmittedUpdate:
    mine = all_[site]
    return mine.model_copy(update={"consent": mine.statement, "statement": mine.consent})


def _pretty(line: bytes) -> bytes:
    return json.dumps(json.loads(line), indent=3).encode() + b"\n"


def _granted(**changes: Any) -> Lie:
    def lie(sent: Sent) -> None:
        digest = sha256_digest(sent.delta)
        granted = replace(grant(sent.site, sent.contract, sent.digest, digest, AT), **changes)
        sent.grant = granted.statement()

    return lie


def _without(kind: Evidence) -> dict[Evidence, dict[str, Any]]:
    return {other: {} for other in Evidence if other is not kind}


def _attributes(change: Callable[[list[dict[str, Any]]], None]) -> Lie:
    return lambda sent: change(sent.grant["predicate"]["attributes"])


def _another_grant(update: dict[str, Any]) -> None:
    for dependency in _dependencies(update):
        if dependency["annotations"]["role"] == "grant":
            dependency["digest"] = {"sha256": "0" * 64}


LOST = ArtifactRef(repository="digits/x", digest=OTHER)
LIES: dict[str, tuple[Lie, Reason]] = {
    "names a consent that nobody signed": (_renamed(_wrong_consent), Reason.CONSENT_INVALID),
    "names a second consent": (_renamed(_more("consent")), Reason.STATEMENT_INVALID),
    "names no consent": (_renamed(_only("base", "parent", "contract", "grant")), Reason.STATEMENT_INVALID),
    "names no parent": (_renamed(_only("base", "consent", "contract", "grant")), Reason.STATEMENT_INVALID),
    "names no grant": (_renamed(_only("base", "parent", "contract", "consent")), Reason.STATEMENT_INVALID),
    "names a second grant": (_renamed(_more("grant")), Reason.STATEMENT_INVALID),
    "names a data set": (_renamed(_more("dataset")), Reason.STATEMENT_INVALID),
    "another base": (_role("base", OTHER), Reason.PARENT_MISMATCH),
    "another parent": (_role("parent", OTHER), Reason.PARENT_MISMATCH),
    "another contract": (_role("contract", OTHER), Reason.CONTRACT_MISMATCH),
    "for another contract": (_parameter("contract", OTHER), Reason.CONTRACT_MISMATCH),
    "for another round": (_parameter("round", "0123abcd-2"), Reason.REPLAYED),
    "for no round": (_parameter("round", None), Reason.STATEMENT_INVALID),
    "for another site": (_parameter("site", "site-b-2"), Reason.STATEMENT_INVALID),
    "another builder": (
        lambda sent: sent.update["predicate"]["runDetails"].update(builder={"id": "https://x"}),
        Reason.STATEMENT_INVALID,
    ),
    "another kind of update": (
        lambda sent: sent.update["predicate"]["buildDefinition"].update(buildType="x"),
        Reason.STATEMENT_INVALID,
    ),
    "update of another file": (_subject("update", OTHER), Reason.GRANT_INVALID),
    "update signed by a stranger": (_set(update_signer="stranger"), Reason.SIGNATURE_INVALID),
    "update signed by the hub": (_set(update_signer=HUB), Reason.SIGNATURE_INVALID),
    "update is garbage": (_set(wrap_update=lambda _: b"\xff{"), Reason.STATEMENT_INVALID),
    "update is too long": (_set(wrap_update=lambda line: line + b" " * types.MAX_STATEMENT), Reason.STATEMENT_INVALID),
    "consent declines": (_of_consent(verificationResult="FAILED", verifiedLevels=["FAILED"]), Reason.CONSENT_INVALID),
    "consent of another level": (_of_consent(verifiedLevels=["CONCORDAT_ADOPTED"]), Reason.CONSENT_INVALID),
    "consent to another round": (_of_consent(resourceUri="concordat:round/0123abcd-2"), Reason.CONSENT_INVALID),
    "consent by another verifier": (_of_consent(verifier={"id": names.AGGREGATOR}), Reason.CONSENT_INVALID),
    "consent without a time": (_of_consent(timeVerified="yesterday"), Reason.CONSENT_INVALID),
    "consent to another contract": (_subject("consent", OTHER), Reason.CONSENT_INVALID),
    "consent names another site": (_said("site", "site-b-2"), Reason.CONSENT_INVALID),
    "consent is another kind of statement": (
        lambda sent: sent.consent.update(predicateType=names.RELEASE),
        Reason.CONSENT_INVALID,
    ),
    "consent signed by a stranger": (_set(consent_signer="stranger"), Reason.CONSENT_INVALID),
    "consent signed by the aggregator": (_set(consent_signer=AGGREGATOR), Reason.CONSENT_INVALID),
    "consent is garbage": (_set(wrap_consent=lambda _: b"[]"), Reason.CONSENT_INVALID),
    "consent is too long": (_set(wrap_consent=lambda line: line + b" " * types.MAX_STATEMENT), Reason.CONSENT_INVALID),
    "no grant": (_set(grant_signer=None), Reason.GRANT_INVALID),
    "a grant that it forged": (_set(grant_signer="stranger"), Reason.GRANT_INVALID),
    "a grant that the hub's own key signed": (_set(grant_signer=HUB), Reason.GRANT_INVALID),
    "a grant that it signed itself": (lambda sent: _set(grant_signer=sent.site)(sent), Reason.GRANT_INVALID),
    "a grant for another update": (_granted(update=OTHER), Reason.GRANT_INVALID),
    "a grant for another site": (_granted(site="site-x"), Reason.GRANT_INVALID),
    "a grant for another key": (_granted(key="SHA256:" + "B" * 43), Reason.GRANT_INVALID),
    "a grant of another round": (_granted(round_uid="0123abcd-2"), Reason.GRANT_INVALID),
    "a grant under another contract": (_granted(contract=OTHER), Reason.GRANT_INVALID),
    "a grant to train": (_granted(purpose=Purpose.TRAIN, update=None, training=None), Reason.GRANT_INVALID),
    "a grant of last week": (_granted(not_before=AT - timedelta(days=7)), Reason.GRANT_INVALID),
    "a grant without the trainer's image": (_granted(found=_without(Evidence.TRAINER_IMAGE)), Reason.GRANT_INVALID),
    "a grant without the agent's pod": (_granted(found=_without(Evidence.AGENT_POD)), Reason.GRANT_INVALID),
    "a grant with evidence twice": (_attributes(lambda found: found.append(found[0])), Reason.GRANT_INVALID),
    "a grant with evidence of its own kind": (
        _attributes(lambda found: found.append({"attribute": "Honour", "conditions": {}})),
        Reason.GRANT_INVALID,
    ),
    "names another grant than it has": (_renamed(_another_grant), Reason.GRANT_INVALID),
    "status names no consent": (_placed(consent=None), Reason.CONSENT_INVALID),
    "status names a consent that is not there": (_placed(consent=LOST), Reason.CONSENT_INVALID),
    "status names a statement that is not there": (_placed(statement=LOST), Reason.STATEMENT_INVALID),
    "status names an update that is not there": (_placed(artifact=LOST), Reason.ARTIFACT_UNREADABLE),
    "status names the neighbour's consent": (_neighbours("consent"), Reason.CONSENT_INVALID),
    "status names the neighbour's statement": (_neighbours("statement"), Reason.SIGNATURE_INVALID),
    "status names the statements the other way round": (_set(place=_exchanged), Reason.STATEMENT_INVALID),
}
HARMLESS: dict[str, Lie] = {
    "in another form": _set(wrap_consent=_pretty, wrap_update=_pretty),
    "a reason of its own": _said("reason", "Gladly"),
    "more in the predicate": _of_consent(more={"x": [1, "é"]}),
}


Lines = tuple[bytes, ...]
After = Callable[[MemoryRegistry, list[SubmittedUpdate]], Awaitable[None]]


@dataclass(frozen=True)
class Ended:
    """A round, aggregated and signed."""

    report: AggregationReport
    lineage: Lineage | None
    """As `verify_candidate` read it; None where there is no candidate."""

    def reasons(self) -> dict[str, str]:
        """The verdict's reason, by site."""
        return {verdict.site: verdict.reason for verdict in self.report.verdicts}


async def aggregated(
    lies: dict[str, list[str]], folder: Path, after: After | None, lines_of: Callable[[Lines], Lines] | None = None
) -> Ended:
    """Run aggregator, signing and lineage on what these sites send; `after` happens when the aggregator has ended.

    `lines_of` is what an aggregator that lies makes of the sites' statements.
    """
    registry = MemoryRegistry()
    adapter = {types.ADAPTER_FILE: write_tensors(PARENT), types.ADAPTER_CONFIG_FILE: b'{"r": 2, "lora_alpha": 2}'}
    agreed = contract(
        base=await registry.push("digits/base", types.BASE_PACKAGE, {"package.json": b"{}"}),
        parent=await registry.push("digits/adapters", types.ADAPTER, adapter),
        sites=[entry(site) for site in SITES],
        aggregation={"rule": "Mean", "preAggregation": "None", "maxFaultySites": 0},
        screening={"clipNorm": "1"},
    )
    signed = await publish_contract(registry, KEYS, agreed)
    pushed: dict[str, SubmittedUpdate] = {}
    sent = {site: Sent(site, agreed, signed.sha256) for site in SITES}
    for site, one in sent.items():
        # What is harmless first: another form would replace a lie about the same line.
        for lie in sorted(lies.get(site, []), key=lambda lie: lie not in HARMLESS):
            (HARMLESS[lie] if lie in HARMLESS else LIES[lie][0])(one)
        pushed[site] = await one.push(registry)
    submissions = [one.place(pushed, site) for site, one in sent.items()]
    request = AggregationRequest(
        contract=signed.artifact,
        contract_digest=signed.sha256,
        contract_key=KEYS.contract.public.to_pem(),
        gateway_keys=[key.to_pem() for key in KEYS.gateway],
        submissions=submissions,
    )
    ref = await registry.push(
        round_repository("digits", UID), types.AGGREGATION_REQUEST, {request.FILE: request.to_bytes()}
    )
    result = present(await job.run(registry, ref, folder))
    if after is not None:
        await after(registry, submissions)
    confirmed = await confirm(registry, result, ref, signed.sha256)
    report = confirmed.report
    site_lines = confirmed.site_lines if lines_of is None else lines_of(confirmed.site_lines)
    published = await publish_verdicts(registry, KEYS, agreed, signed, report, site_lines=site_lines, at=AT)
    if published.lineage is None:
        return Ended(report, None)
    lines = await registry.read(published.lineage, types.LINEAGE_FILE, types.MAX_LINEAGE)
    lineage = verify_candidate(
        lines, KEYS.trust({}), adapter=present(report.adapter).digest, contract_digest=signed.sha256
    )
    return Ended(report, lineage)


def ended(lies: dict[str, list[str]], after: After | None = None) -> Ended:
    """The same, from a test without a loop."""
    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(aggregated(lies, Path(folder), after))


@pytest.mark.parametrize("left_out", [0, 1, -1])
@pytest.mark.attack("F5: a candidate whose lineage no site would accept", "operator", "AggregationFailed")
async def test_a_candidate_that_no_site_would_accept_is_not_proposed(left_out: int, tmp_path: Path) -> None:
    """Finding F5: the hub verifies what it is about to propose by the functions that a site verifies it with."""

    def without(lines: Lines) -> Lines:
        return tuple(line for line in lines if line != lines[left_out])

    with pytest.raises(LineageError, match=r"is not (in the bundle|the one its update was made with)"):
        await aggregated({}, tmp_path, None, without)


@settings(deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(SITES[1:]), st.lists(st.sampled_from([*LIES, *HARMLESS]), min_size=1, max_size=3, unique=True)
    )
)
@pytest.mark.attack("F5: an update that only the lineage would refuse", "aggregator", "its reason, alone")
def test_whatever_is_admitted_to_the_aggregate_verify_candidate_accepts(lies: dict[str, list[str]]) -> None:
    """Findings 2 and 3: what a site signs or names costs that site its place, and nobody else anything."""
    honest = tuple(site for site in SITES if set(lies.get(site, [])) <= set(HARMLESS))
    round_ = ended(lies)
    assert tuple(site for site, reason in round_.reasons().items() if reason == "Verified") == honest
    assert present(round_.lineage).accepted == honest
    assert present(round_.lineage).rejected == tuple(site for site in SITES if site not in honest)


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_costs_the_liar_alone(lie: str) -> None:
    """Findings 2, 3 and 5: each lie leads to a verdict on the liar, and uses up nothing of the fault budget."""
    round_ = ended({"site-b": [lie]})
    assert present(round_.lineage).accepted == ("site-a", "site-c", "site-d")
    assert round_.reasons()["site-b"] == LIES[lie][1]
    assert round_.report.rejected == 0


def test_a_site_that_removes_what_it_sent_after_the_aggregator_ended_loses_nothing_for_anybody() -> None:
    """Finding 2: the lineage is made from what the aggregator verified, not from what is there later."""

    async def remove(registry: MemoryRegistry, submissions: list[SubmittedUpdate]) -> None:
        for ref in (submissions[1].consent, submissions[1].statement, submissions[1].artifact):
            del registry.stored[present(ref).repository, present(ref).digest]

    assert present(ended({}, remove).lineage).accepted == SITES


def test_without_an_honest_site_there_is_no_candidate_and_every_site_has_a_verdict() -> None:
    """Also then every site has a verdict, and nothing fails."""
    round_ = ended({site: ["consent is garbage"] for site in SITES})
    assert round_.lineage is None
    assert set(round_.reasons().values()) == {"ConsentInvalid"}
