"""What each reason means and what a person can do about it; docs/reference/api.md is made of it."""

from __future__ import annotations

from dataclasses import dataclass

from concordat.api.conditions import Reason


@dataclass(frozen=True)
class ReasonHelp:
    """`meaning` for everybody; `remedy` for the person on call, empty where nothing is wrong."""

    meaning: str
    remedy: str = ""


REASON_HELP: dict[Reason, ReasonHelp] = {
    # A round
    Reason.SUSPENDED: ReasonHelp(
        "`spec.suspend` is true: nothing new is started.", "Set `spec.suspend: false` to go on."
    ),
    Reason.SELECTED: ReasonHelp("The sites of the round are chosen."),
    Reason.NO_ELIGIBLE_SITE: ReasonHelp(
        "No Site takes part in the federation, matches the selector and is Ready and Accepted.",
        "Compare `kubectl get sites -A --show-labels` with `spec.sites.matchLabels` and `spec.federation`; "
        "bring the sites to Ready.",
    ),
    Reason.QUORUM_UNREACHABLE: ReasonHelp(
        "Fewer sites are eligible, or still in the round, than the quorum asks for.",
        "Before the contract: add sites or lower `spec.quorum`. After it: create a new round once the sites named in "
        "`status.droppedSites` are well.",
    ),
    Reason.QUORUM_NOT_REACHED: ReasonHelp(
        "The round ended with fewer verified updates than its quorum; no champion was touched.",
        "Read `status.droppedSites` for who dropped out and why, cure it, and create a new round.",
    ),
    Reason.PARENT_NOT_FOUND: ReasonHelp(
        "The parent Release, its channel, or its artifacts do not exist.",
        "Correct `spec.parent`, or push the base package and the adapter that the Release names.",
    ),
    Reason.PARENT_NOT_APPROVED: ReasonHelp(
        "The parent Release has not been approved by the evaluator.",
        "Choose an approved Release, or wait until this one is judged.",
    ),
    Reason.PARENT_SUPERSEDED: ReasonHelp(
        "While the round ran, another release of its federation was approved: releasing this one, which does not build "
        "on it, would throw it away.",
        "Create a new round: it starts from what the channel points to now. Two hubs must not serve one federation.",
    ),
    Reason.ANOTHER_ROUND_OPEN: ReasonHelp(
        "Another round of the federation has a contract and has not ended; two at once would overwrite each other.",
        "Nothing: this round starts when the other has ended. Approve or delete the other one if it is held.",
    ),
    Reason.NO_IMAGE: ReasonHelp(
        "Neither the round nor the operator names an image for the training Job.",
        "Set `spec.recipe.image`, or `learningImage` of the operator's chart, to an image by digest.",
    ),
    Reason.TOO_MANY_FAULTS: ReasonHelp(
        "The aggregation rule cannot withstand `maxFaultySites` with this many sites.",
        "Lower `spec.aggregation.maxFaultySites`, or select more sites.",
    ),
    Reason.SIGNED: ReasonHelp("The contract is frozen, signed and published."),
    Reason.WAITING: ReasonHelp("An earlier step has not ended yet, or the site's hours of consent are to come."),
    Reason.COLLECTED: ReasonHelp("Every site has answered, or its deadline has passed with the quorum met."),
    Reason.NOT_ALLOWED: ReasonHelp(
        "The site was never asked: the API server refused the hub's request in the site's namespace.",
        "Read the message: the namespace may be gone, or its Role and RoleBinding for the hub. Install the site's "
        "chart there again.",
    ),
    Reason.TOO_LATE: ReasonHelp(
        "The site answered after the aggregation of the round had begun: what it sent counts nowhere.",
        "Nothing, if the site was down; otherwise see whether its clock is right, and give the round longer deadlines.",
    ),
    Reason.AGGREGATED: ReasonHelp("The verified updates are one candidate adapter."),
    Reason.AGGREGATION_FAILED: ReasonHelp(
        "The aggregator Job failed, or its result is not what the operator can confirm.",
        "Read `kubectl logs` and `kubectl describe` of the round's Job in the hub's namespace; create a new round.",
    ),
    Reason.HELD_FOR_APPROVAL: ReasonHelp(
        "Screening rejected more updates than `maxFaultySites`, so that number was too small. The candidate is made "
        "to withstand as many of them as the updates left allow, but not proposed.",
        "Read the rejections in `status.droppedSites`. If they are explained, set `spec.approveHeld: true`; if not, "
        "delete the round and create a new one without these sites.",
    ),
    Reason.REFERENCE_MISSING: ReasonHelp(
        "FLTrust has no update of `spec.aggregation.referenceSite` to measure the others by.",
        "See why that site dropped out, and create a new round; or choose another rule.",
    ),
    Reason.LORA_ERROR_ABOVE_LIMIT: ReasonHelp(
        "Svd would discard more than 5 % of the aggregate.",
        "Use `spec.aggregation.lora: Alternating`, which is exact; or a parent of higher rank.",
    ),
    Reason.TRIGGER_RESPONSE: ReasonHelp(
        "With the candidate, a known trigger turns canary examples to one class, and not with the base model: a "
        "backdoor.",
        "Treat it as an attack: look at the Functional alerts of the updates, and create a new round without those "
        "sites.",
    ),
    Reason.POISONING_ALERT: ReasonHelp(
        "On a round: an update is suspected of poisoning. On a Site: two were within 30 days, and it is not asked.",
        "Look into it with the site. The Site's condition says when the quarantine ends, and what ends it at once.",
    ),
    Reason.RELEASED: ReasonHelp("The candidate is approved and released."),
    Reason.NOT_APPROVED: ReasonHelp(
        "The evaluator judged the candidate and did not approve it; no champion was touched.",
        "Compare the figures in `status.evaluation` with `spec.evaluation`; train longer or with other settings.",
    ),
    Reason.NO_EVALUATOR: ReasonHelp(
        "No Site with role Evaluator is Ready and Accepted for this federation.",
        "Install one with the concordat-site chart (`role: Evaluator`), or bring it to Ready.",
    ),
    Reason.EVALUATION_DEADLINE_EXCEEDED: ReasonHelp(
        "The evaluator did not answer in time.",
        "Look at the Release and its Job in the evaluator's namespace; then create a new round, perhaps with a larger "
        "`spec.deadlines.evaluationSeconds`.",
    ),
    Reason.IN_PROGRESS: ReasonHelp("The step is being worked on."),
    # A site
    Reason.ACCEPTED: ReasonHelp("The site is a member, and shows a key that its Membership names."),
    Reason.NOT_A_MEMBER: ReasonHelp(
        "No Membership of the hub accepts this site.",
        "Compare the key in the message with the one that the site's people read in their agent's log, then: "
        "`concordat site accept <site>`.",
    ),
    Reason.MEMBERSHIP_SUSPENDED: ReasonHelp(
        "The site's Membership has `spec.suspended: true`: it is not asked, and nothing that it says counts.",
        "Set it to false when the cause is dealt with.",
    ),
    Reason.ROLE_MISMATCH: ReasonHelp(
        "The Site says another role than its Membership.",
        "Whoever is wrong installs anew: a role cannot change.",
    ),
    Reason.NAME_MISMATCH: ReasonHelp(
        "The Site's name differs from its namespace's; a site's name is its namespace.",
        "Create the Site under the name of its namespace; the concordat-site chart does.",
    ),
    Reason.NO_KEY: ReasonHelp(
        "The agent has not shown its public key yet.",
        "See whether the agent runs: `kubectl get pods -n <site>` and its log.",
    ),
    Reason.KEY_CHANGED: ReasonHelp(
        "The agent shows no key that its Membership names; its statements are refused.",
        "Find out why. If the change is meant: `concordat site accept <site>`; otherwise restore the agent's state "
        "volume.",
    ),
    Reason.KEY_IN_USE: ReasonHelp(
        "Another member, or the hub itself, has a key that this Membership names.",
        "Take it out of the Membership that it does not belong to. A copied namespace or volume needs a new `state` "
        "volume, so that its agent makes a key of its own.",
    ),
    Reason.KEY_EXPIRED: ReasonHelp(
        "The Membership names the key that the agent shows, but not for the present time.",
        "Give it a later `notAfter`, or accept the site's next key: `concordat site accept <site>`.",
    ),
    Reason.HEARTBEAT: ReasonHelp("The agent was heard from lately."),
    Reason.HEARTBEAT_LOST: ReasonHelp(
        "The agent has not renewed its Lease for 90 seconds.",
        "See whether the agent runs and reaches the API server: `kubectl get pods,leases -n <site>`.",
    ),
    Reason.OUTAGE_ASSUMED: ReasonHelp(
        "Most agents fell silent within the same 90 seconds, as when the API server or the network is out: the site "
        "still counts as Ready, for a quarter of an hour at most while others are heard.",
        "See whether the agents reach the API server: `kubectl get pods,leases -A -l "
        "app.kubernetes.io/managed-by=concordat-operator`.",
    ),
    Reason.CLOCK_SKEW: ReasonHelp(
        "The clock of the site's node and the hub's differ by more than 30 seconds. The heartbeat does not suffer, but "
        "each side judges deadlines by its own clock.",
        "Synchronize both nodes' clocks (NTP): `timedatectl` or `chronyc tracking` on each.",
    ),
    # An update, as its site answers
    Reason.CONSENTED: ReasonHelp("The site's policy allows the contract, and the agent signed its consent."),
    Reason.POLICY_REFUSED: ReasonHelp(
        "The site's own policy does not allow the contract, or the operator's answer came too late.",
        "The message names the limit. The site changes `policy` of its release, or the next round asks for less.",
    ),
    Reason.CONTRACT_INVALID: ReasonHelp(
        "The contract is not signed by the hub's pinned key, or says something else than the request.",
        "Compare the hub's ConfigMap `concordat-trust` with the site's `trust`. If they agree, treat it as an attack.",
    ),
    Reason.STAGED: ReasonHelp("All inputs lie verified on the site's workspace volume."),
    Reason.KEY_POSSESSION_PROVED: ReasonHelp("The consent is signed with the site's pinned key."),
    Reason.KEY_POSSESSION_NOT_PROVED: ReasonHelp(
        "The consent is missing, or not signed with the site's pinned key.",
        "Look at the Site's Accepted condition; the agent's key and the pinned key must be the same.",
    ),
    Reason.TRAINING: ReasonHelp("The Job runs."),
    Reason.TRAINED: ReasonHelp("The Job ended with a candidate."),
    Reason.TRAINING_FAILED: ReasonHelp(
        "The Job failed for a reason of its own: bad input, bad data or a bug.",
        "Read `kubectl logs job/<update> -n <site>`; exit code 64 is bad input, 65 bad data, 70 a bug.",
    ),
    Reason.STOPPED: ReasonHelp("The round ended without this site while its Job still ran; the Job was stopped."),
    Reason.OOM_KILLED: ReasonHelp(
        "The Job's container needed more memory than it may use.",
        "Training: raise `spec.budget.memory` or lower `spec.recipe.batchSize` in the next round. Other Jobs are "
        "started again, three times in all.",
    ),
    Reason.EVICTED: ReasonHelp(
        "The node evicted the pod too often.",
        "Look at the node's pressure conditions and the volume sizes; the next round tries again.",
    ),
    Reason.DEADLINE_EXCEEDED: ReasonHelp(
        "The site or its Job did not finish in time.",
        "Raise `spec.deadlines` or `spec.budget.maxWallSeconds`, or lower `spec.budget.maxSteps`.",
    ),
    Reason.UNSCHEDULABLE: ReasonHelp(
        "The Job's pod finds no node.",
        "The message is the scheduler's: free or add nodes, or ask for less in `spec.budget`. The Job waits until its "
        "deadline.",
    ),
    Reason.IMAGE_PULL_FAILED: ReasonHelp(
        "The node cannot pull the image of the Job's pod.",
        "See that the image exists and that the node reaches its registry; set `imagePullSecrets` of the site's "
        "release if the registry asks for a password.",
    ),
    Reason.VOLUME_NOT_READY: ReasonHelp(
        "A volume of the Job's pod is not bound, or not attached to its node.",
        "`kubectl describe pod` names the volume. A ReadWriteOnce volume that another node holds is never attached.",
    ),
    Reason.QUOTA_EXCEEDED: ReasonHelp(
        "A ResourceQuota of the namespace has no room for the Job; it is tried again until the deadline.",
        "Raise the quota, or remove what uses it: `kubectl describe resourcequota -n <namespace>`.",
    ),
    Reason.QUEUED: ReasonHelp(
        "The Job is suspended until the site's agent admits it, or its pod is held by a scheduling gate.",
        "See whether the agent runs, or look at the queue; the Job's deadline counts from its start.",
    ),
    Reason.POD_PENDING: ReasonHelp(
        "The Job has no running pod for another reason.", "The message says what is known, and what to look at."
    ),
    Reason.SITE_NOT_FOUND: ReasonHelp(
        "The Site object of this namespace is gone, so no Job can be made for it.",
        "Create the Site again (the concordat-site chart does); it is noticed at once.",
    ),
    Reason.NOT_ISOLATED: ReasonHelp(
        "The training container found a network and refused to read data.",
        "Install the RuntimeClass named in the operator's `runtimeClassName`, or a CNI that isolates the pod.",
    ),
    Reason.JOB_NOT_ALLOWED: ReasonHelp(
        "The Job could not be created, or it is not the one the contract yields: the agent did not let it run, or, "
        "where it ran nevertheless, signed nothing of it.",
        "The message names the refusal or the difference. Look for quotas, policies and webhooks that refuse or change "
        "Jobs; where there are none, treat a difference, or a Job that ran by itself, as an attack.",
    ),
    Reason.INPUT_CHANGED: ReasonHelp(
        "What lay on the workspace for the Job is not what the agent staged; nothing that the Job left was used.",
        "Only the agent should write there. Find out who else can: another claim on the volume, a person, a node.",
    ),
    Reason.GATE_FAILED: ReasonHelp(
        "The candidate fell too far below its parent on the site's own data and was not sent.",
        "Look at the site's data and at `spec.gates` and `spec.recipe`; nothing left the site.",
    ),
    Reason.NO_CANDIDATE: ReasonHelp(
        "The Job ended without a usable candidate or evidence.",
        "Read the Job's log; the workspace volume may be full.",
    ),
    Reason.GRANT_REFUSED: ReasonHelp(
        "The hub's gateway gives the site no grant to train, or to send its update.",
        "The message says what did not hold; the gateway's log has it too. See what runs in the agent's and the "
        "trainer's pods, and whether the Membership and its keys are in order.",
    ),
    Reason.SUBMITTED: ReasonHelp("The clipped update and its signed statement are in the registry."),
    # An update, as the hub verifies it
    Reason.VERIFIED: ReasonHelp("Every check of the update passed."),
    Reason.ARTIFACT_UNREADABLE: ReasonHelp(
        "The update cannot be read: missing, corrupt, too large or not safetensors.",
        "See whether the artifact registry lost data; the site's agent log names what it pushed.",
    ),
    Reason.STATEMENT_INVALID: ReasonHelp(
        "The update's statement is malformed or names other content.",
        "Compare the versions of agent and operator; a site that sends this repeatedly is suspect.",
    ),
    Reason.SIGNATURE_INVALID: ReasonHelp(
        "The statement is not signed by the key that the contract names for this site.",
        "Look at the Site's Accepted condition; if the key is right, treat it as an attack.",
    ),
    Reason.CONSENT_INVALID: ReasonHelp(
        "The consent is missing, is not the site's signed yes to this contract, or is not the one the update names.",
        "Look at who wrote `status.consent` of the Update after the site consented; the message names what is wrong.",
    ),
    Reason.GRANT_INVALID: ReasonHelp(
        "The update came without the gateway's grant to send it, or with one for something else.",
        "The agent sends no such update: see what runs at the site.",
    ),
    Reason.CONTRACT_MISMATCH: ReasonHelp(
        "The update was made under another contract.",
        "Delete left-over Updates of older rounds; a site that sends this repeatedly is suspect.",
    ),
    Reason.PARENT_MISMATCH: ReasonHelp(
        "The update was made from another parent or base package.",
        "Let the agent stage its inputs anew: restart it; the next round tries again.",
    ),
    Reason.SCHEMA_MISMATCH: ReasonHelp(
        "Tensor names, shapes or dtypes differ from the parent's trained factor.",
        "See that the site runs the contract's image; a site that sends this repeatedly is suspect.",
    ),
    Reason.NOT_FINITE: ReasonHelp(
        "The update contains NaN or infinity.",
        "Lower `spec.recipe.learningRate`; look at the site's training log.",
    ),
    Reason.NORM_EXCEEDED: ReasonHelp(
        "The update's norm is above the contract's `screening.clipNorm`; an honest agent clips it.",
        "Suspect the site: leave it out of the next round until it is explained.",
    ),
    Reason.DUPLICATE: ReasonHelp(
        "The update equals another site's update, value for value.",
        "Suspect the sites involved: honest training on different data does not coincide.",
    ),
    Reason.NEAR_DUPLICATE: ReasonHelp(
        "The update points the same way as another site's, more closely than honest training on different data does.",
        "Suspect the sites involved: one party may stand behind both, or have read the other's update.",
    ),
    Reason.FREE_RIDING: ReasonHelp(
        "The update is next to nothing, or repeats the last aggregate: the site hardly trained.",
        "Look at the site's data and training log; leave it out of the next round until it is explained.",
    ),
    Reason.POISONING_SUSPECTED: ReasonHelp(
        "Independent alerts and a failed functional check: the update is rejected; the second time within 30 days, the "
        "site is quarantined.",
        "Look into it with the site: honest data that is very unusual can look like this, once.",
    ),
    Reason.REPLAYED: ReasonHelp(
        "The update was submitted before, in this or another round.",
        "Suspect the site: leave it out of the next round until it is explained.",
    ),
    # A release
    Reason.GENESIS: ReasonHelp("Made by people: the start of a federation, with no round behind it."),
    Reason.EVALUATING: ReasonHelp("The evaluator is judging the candidate."),
    Reason.APPROVED: ReasonHelp("The evaluator approved it."),
    Reason.REJECTED: ReasonHelp(
        "It was judged and not accepted.",
        "Compare the figures in `status.decision` or `status.evaluation` with what was demanded.",
    ),
    Reason.LINEAGE_VERIFIED: ReasonHelp("The site verified the whole chain of statements offline."),
    Reason.LINEAGE_INVALID: ReasonHelp(
        "The chain of statements has a gap or an invalid signature; the site did not stage the release.",
        "The message names the link. Compare the site's `trust` with the hub's ConfigMap `concordat-trust`; "
        "if they agree, treat it as an attack.",
    ),
    Reason.VALIDATING: ReasonHelp("The release is measured on this namespace's own data."),
    Reason.VALIDATED: ReasonHelp("The Job measured the release; the agent decides from its figures."),
    Reason.ADOPTED: ReasonHelp("The site uses this release, or used it until a later one."),
    Reason.POLICY_REJECTED: ReasonHelp(
        "The site's policy does not allow adoption, or the measured quality is below its minimum.",
        "The message names the limit; it is in `policy.adoption` or `policy.judging` of the site's release.",
    ),
    Reason.REGRESSION: ReasonHelp(
        "The release is worse on the site's own data than what it uses now, by more than its policy allows.",
        "Nothing, if the site is special; otherwise see `rollout.worstRegressionPpm` and train for that site's data.",
    ),
    Reason.VALIDATION_FAILED: ReasonHelp(
        "The Job that measures the release failed.",
        "Read `kubectl logs job/<release> -n <namespace>`.",
    ),
    Reason.SUPERSEDED: ReasonHelp("A release with a higher sequence took its place."),
    # A channel
    Reason.ROLLED_OUT: ReasonHelp("Every subscribed site has decided about the release."),
    Reason.CANNOT_ROLL_BACK: ReasonHelp(
        "Some of the channel's sites use a release with a higher sequence than the one it points to, and sites do not "
        "go back yet.",
        "Point the channel to what the sites use, or run a round with the wanted release as `parent.releaseRef`: "
        "what it releases gets a higher sequence.",
    ),
    Reason.NO_RELEASE: ReasonHelp(
        "The channel points to nothing: no such Release, or none approved yet.",
        "Correct `spec.release`, or run a round that is approved.",
    ),
    Reason.RELEASE_NOT_APPROVED: ReasonHelp(
        "The pinned Release is not approved, so it is not distributed.",
        "Pin an approved Release: `kubectl get releases -n concordat`.",
    ),
    # Any
    Reason.CLEANING_UP: ReasonHelp(
        "The round is being deleted and waits for objects that do not go away.",
        "The message names them and their finalizers: see to the program that set these, or remove them by hand.",
    ),
    Reason.REGISTRY_UNAVAILABLE: ReasonHelp(
        "The artifact registry cannot be reached; it is tried again.",
        "Look at the registry's pod, its volume and the NetworkPolicies between.",
    ),
    Reason.REGISTRY_REFUSED: ReasonHelp(
        "The artifact registry, or a proxy before it, refuses the request; it is tried again.",
        "The message names request and status. See what the registry and the proxies before it allow from there.",
    ),
    Reason.DISK_FULL: ReasonHelp(
        "A volume of the site's agent has no space left; the step is tried again.",
        "The message names the file. Enlarge the volume, the workspace or the agent's state, or remove what else "
        "lies on it.",
    ),
    Reason.INVALID: ReasonHelp(
        "The object contradicts itself or another in a way the schema cannot refuse.",
        "The message names field, value and remedy.",
    ),
}
