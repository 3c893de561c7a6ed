"""The tables of the attack suite, as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import mean

from bench.attacks.defences import (
    CANARY,
    LEAST_SHARE,
    LIMITS,
    LOSS,
    MAX_CANDIDATE_GAIN,
    RECOMMENDED,
    REJECTED,
    THRESHOLDS,
)
from bench.attacks.hostile import ATTACKS, FRAMING, NONE
from bench.attacks.play import LAST, Found, Result
from bench.attacks.toy import BATCH, HOSTILE, ROUNDS, SITES, SIZE, STEPS
from bench.machine import about, table, write_report
from concordat.screening import Alert, Reason

_REJECTIONS = (Reason.NORM_EXCEEDED.value, Reason.NEAR_DUPLICATE.value, Reason.FREE_RIDING.value, REJECTED)
_STEPS = (
    *((what, RECOMMENDED) for what in _REJECTIONS),
    *((f"{alert.value} alert", CANARY if alert is Alert.FUNCTIONAL else RECOMMENDED) for alert in Alert),
    (Reason.POISONING_SUSPECTED.value, CANARY),
)
"""What is counted, and in the runs of which defence."""
_BEST = 5
_ALWAYS = ("mean", "coordinate median", "trimmed mean", "NNM + trimmed mean", RECOMMENDED, CANARY)
TARGET = 2.0
"""Most false positives, in percent, that a step which rejects may have."""
_BACKDOORS = {attack.name for attack in ATTACKS if attack.backdoor}


class Runs:
    """The results, and the means over seeds that the tables show."""

    def __init__(self, all_results: Sequence[Result]) -> None:
        self.honest = [r for r in all_results if len(r.outcomes) == 1]
        """More federations, for what screening does to honest sites: without attack, and under `FRAMING`."""
        self.declared = [r for r in all_results if r.declared != HOSTILE]
        results = self.results = [r for r in all_results if r.declared == HOSTILE and len(r.outcomes) > 1]
        self.alphas = sorted({r.alpha for r in results}, reverse=True)
        self.attacks = [attack.name for attack in ATTACKS if any(r.attack == attack.name for r in results)]
        self.untargeted = [name for name in self.attacks if name not in _BACKDOORS]
        self.backdoors = [name for name in self.attacks if name in _BACKDOORS]
        self.defences = list(results[0].outcomes)
        self.seeds = len({r.seed for r in results})

    def alone(self, alpha: float, attack: str) -> list[Found]:
        """Return what screening with a canary found in the further federations under one attack, or none."""
        return [r.screened[CANARY] for r in self.honest if (r.alpha, r.attack) == (alpha, attack)]

    def of(self, alpha: float, attacks: Iterable[str]) -> list[Result]:
        wanted = set(attacks)
        return [r for r in self.results if r.alpha == alpha and r.attack in wanted]

    def accuracy(self, alpha: float, defence: str, attack: str) -> float:
        """Percent."""
        return 100 * mean(r.outcomes[defence].accuracy for r in self.of(alpha, [attack]))

    def success(self, alpha: float, defence: str, attack: str) -> float:
        """Percent."""
        return 100 * mean(r.outcomes[defence].success for r in self.of(alpha, [attack]))

    def worst(self, alpha: float, defence: str) -> tuple[float, str]:
        """The lowest accuracy and its attack; backdoors are not meant to lower it."""
        return min((self.accuracy(alpha, defence, attack), attack) for attack in self.untargeted)

    def flagged(self, alpha: float, attacks: Iterable[str], what: str, hostile: bool, defence: str) -> float:
        """Percent of the updates, of hostile or of honest sites, that a detector marks."""
        screened = [r.screened[defence] for r in self.of(alpha, attacks)]
        return _percent(sum(s.found[what, hostile] for s in screened), sum(s.asked[hostile] for s in screened))

    def honest_without_attack(self, alpha: float, what: str, defence: str) -> float:
        """Percent of all updates where every site is honest."""
        screened = [r.screened[defence] for r in self.of(alpha, [NONE.name])]
        marked = sum(s.found[what, hostile] for s in screened for hostile in (False, True))
        return _percent(marked, sum(s.asked.total() for s in screened))

    def left_out(self, alpha: float, attacks: Iterable[str], rule: str, hostile: bool | None) -> float:
        """Percent of the updates, of hostile, of honest or of all sites, that a rule leaves out."""
        found = [r.left_out[rule] for r in self.of(alpha, attacks) if rule in r.left_out]
        each = SITES if hostile is None else HOSTILE if hostile else SITES - HOSTILE
        out = sum(f.updates.total() if hostile is None else f.updates[hostile] for f in found)
        return _percent(out, each * sum(f.rounds for f in found))


def report(path: Path, results: Sequence[Result], seconds: float) -> None:
    """Write all tables to `path`."""
    runs = Runs(results)
    lines = [
        "# Attacks",
        "",
        "Written by `make bench-attacks`; do not edit.",
        "",
        *(f"- {line}" for line in about("scikit-learn", "byzfl", "flwr")),
        f"- {len(results)} runs of {len(runs.defences)} defences, {runs.seeds} seeds, in {seconds / 60:.1f} minutes.",
        "",
        *_setup(),
        *_reading(runs),
    ]
    for alpha in runs.alphas:
        lines += [f"## {_skew(alpha)}", "", *_outcomes(runs, alpha)]
    lines += _declared(runs)
    lines += ["## What screening finds", "", *_honest(runs), *_false_positives(runs), *_true_positives(runs)]
    lines += [*_functional(runs), *_unchanged(runs), *_left_out(runs)]
    write_report(path, lines)


def _setup() -> list[str]:
    return [
        f"{SITES} sites, {HOSTILE} of them hostile, adapt a frozen network to handwritten digits through the B factors "
        f"({SIZE} values) of a LoRA of rank 8: {ROUNDS} rounds of {STEPS} local steps with {BATCH} examples. Attackers "
        "know all honest updates, the frozen factor and the norm cap, and never miss a round. The cap is twice the "
        "median norm of a run without attack; honest sites clip to it. Hostile updates arrive first, so that of two "
        "that are alike theirs is kept: the worst case. *Noise*: each coordinated update has independent "
        "noise of a fifth of its norm, so that none is a copy. Thresholds and the default rule were chosen on seeds 0 "
        "to 2, alerts on 6 to 8 too; the attacks below ran on others. Label flips and backdoors are trained like any "
        "update and clipped; the stamped half of a backdoor's batches comes from the data of all sites, and "
        "its trigger is the corner that the frozen factor sees best. All defences of a run get the same batches.",
        "",
        f"Accuracy and ASR (examples of other classes that the trigger turns to the target) are percentages of the "
        f"test examples, means over the last {LAST} rounds and the seeds; differences of 2 or 3 points mean nothing. "
        "*worst*: the lowest accuracy over the attacks that aim at it. A rule that refuses the updates, and a round "
        "that screening holds for approval, change nothing in that round.",
        "",
        *table(["attack", "defined in"], [[a.name, a.source] for a in ATTACKS if a is not NONE]),
    ]


def _reading(runs: Runs) -> list[str]:
    alpha = runs.alphas[-1]
    clean = runs.accuracy(alpha, "mean", NONE.name)
    ranked = sorted(runs.defences, key=lambda name: -runs.worst(alpha, name)[0])
    shown = [*ranked[:_BEST], *(name for name in _ALWAYS if name not in ranked[:_BEST])]
    rows = [
        [
            str(ranked.index(name) + 1),
            name,
            f"{runs.accuracy(alpha, name, NONE.name):.0f}",
            f"{runs.worst(alpha, name)[0]:.0f}",
            runs.worst(alpha, name)[1],
        ]
        for name in shown
    ]
    useful = [n for n in runs.defences if runs.accuracy(alpha, n, NONE.name) >= clean - 10]
    backdoors = []
    for attack in runs.backdoors:
        best = min(useful, key=lambda name: runs.success(alpha, name, attack))
        backdoors.append(
            [
                attack,
                f"{best}: {runs.success(alpha, best, attack):.0f}",
                *(f"{runs.success(alpha, name, attack):.0f}" for name in ("mean", RECOMMENDED, CANARY)),
            ]
        )
    return [
        "## In short",
        "",
        f"Under the strongest skew ({_skew(alpha)}), where a mean without attack has {clean:.0f} %: the {_BEST} "
        "defences whose worst attack leaves most accuracy, and some others.",
        "",
        *table(["place", "defence", "no attack", "worst", "by"], rows),
        "A row says *worst* of the attacks with the number of faulty sites declared right; what a wrong number costs "
        "is below. FLTrust trains on data of the hub's own, drawn as the sites' together are; no other has any.",
        "",
        "Backdoors (ASR, %), and the defence that lets least through among those that lose at most 10 points without "
        "attack:",
        "",
        *table(["backdoor", "least", "mean", RECOMMENDED, CANARY], backdoors),
        "Nobody stops a backdoor of ordinary size under skew: rules, norms and angles tell where an update lies, and "
        "it lies where sites with unusual data lie. The functional check looks at what a model does, with the triggers "
        f"that the hub knows. An update that gains more than {LIMITS.max_trigger_gain} with one, or raises the loss by "
        f"more than {LIMITS.max_loss_increase:g} nat, raises an alert, and with two hints beside it it is rejected; a "
        f"candidate that gains more than {MAX_CANDIDATE_GAIN} against the base model is refused. What that finds, "
        "misses and wrongly refuses stands in the last tables; a trigger that the hub does not know is not found.",
        "",
    ]


def _outcomes(runs: Runs, alpha: float) -> list[str]:
    head = ["defence", *runs.untargeted, "*worst*", *(f"ASR {name}" for name in runs.backdoors)]
    rows = []
    for defence in runs.defences:
        accuracies = [runs.accuracy(alpha, defence, attack) for attack in runs.untargeted]
        successes = [runs.success(alpha, defence, attack) for attack in runs.backdoors]
        rows.append([defence, *_rounded(accuracies), f"**{min(accuracies):.0f}**", *_rounded(successes)])
    return table(head, rows)


def _declared(runs: Runs) -> list[str]:
    """Accuracy where the number of faulty sites is declared wrong."""
    if not runs.declared:
        return []
    alpha = runs.declared[0].alpha
    names, attacks = list(runs.declared[0].outcomes), sorted({r.attack for r in runs.declared}, key=runs.attacks.index)
    rows = []
    for declared in sorted({r.declared for r in runs.declared} | {HOSTILE}):
        mine = runs.declared if declared != HOSTILE else runs.results
        for name in names:
            found = [
                100
                * mean(
                    r.outcomes[name].accuracy for r in mine if (r.alpha, r.declared, r.attack) == (alpha, declared, a)
                )
                for a in attacks
            ]
            rows.append([str(declared), name, *_rounded(found), f"**{min(found):.0f}**"])
    return [
        "## A wrong number of faulty sites",
        "",
        f"{HOSTILE} of {SITES} are hostile, and another number is declared; {_skew(alpha)}, accuracy in percent.",
        "",
        *table(["declared", "rule", *attacks, "*worst*"], rows),
    ]


def _honest(runs: Runs) -> list[str]:
    """What screening does where every site is honest, in more federations."""
    rows = []
    for alpha in sorted({r.alpha for r in runs.honest}, reverse=True):
        screened = runs.alone(alpha, NONE.name)
        rounds, asked = sum(s.rounds for s in screened), sum(s.asked.total() for s in screened)
        counts = (
            (rounds - sum(s.alerted for s in screened), rounds),
            (sum(s.found[REJECTED, hostile] for s in screened for hostile in (False, True)), asked),
            (sum(s.quarantined.total() for s in screened), SITES * len(screened)),
        )
        rows.append([_skew(alpha), *(_interval(*count) for count in counts)])
    federations = len({r.seed for r in runs.honest})
    head = ["", "rounds without an alert of step 7", "updates rejected", "sites in quarantine at the end"]
    return [
        f"Without an attack, in {federations} more federations of {ROUNDS} rounds for each degree of skew, with a "
        "canary: percent, with the 95 % interval (Wilson).",
        "",
        *table(head, rows),
        *_framed(runs),
    ]


def _framed(runs: Runs) -> list[str]:
    """Return the table of honest updates rejected and honest sites in quarantine while hostile ones frame them."""
    rows = []
    for alpha in sorted({r.alpha for r in runs.honest}, reverse=True):
        row = [_skew(alpha)]
        for attack in FRAMING:
            screened = runs.alone(alpha, attack.name)
            rejected = sum(s.found[REJECTED, False] for s in screened)
            asked = sum(s.asked[False] for s in screened)
            out = sum(s.quarantined[False] for s in screened)
            row += [_interval(rejected, asked), _interval(out, (SITES - HOSTILE) * len(screened))]
        rows.append(row)
    head = [
        f"{attack.name}: honest {what}" for attack in FRAMING for what in ("updates rejected", "sites in quarantine")
    ]
    return [
        "The same federations while hostile sites try to have honest ones thrown out, of the honest updates and sites:",
        "",
        *table(["", *head], rows),
    ]


def _interval(part: int, whole: int) -> str:
    """Wilson's interval of 95 % (Wilson, JASA 1927), in percent."""
    z, share = 1.96, part / whole
    middle = (share + z * z / (2 * whole)) / (1 + z * z / whole)
    half = z / (1 + z * z / whole) * ((share * (1 - share) + z * z / (4 * whole)) / whole) ** 0.5
    return f"{100 * share:.2f} ({100 * max(middle - half, 0):.2f} to {100 * (middle + half):.2f})"


def _false_positives(runs: Runs) -> list[str]:
    attacked = [name for name in runs.attacks if name != NONE.name]
    rows, misses = [], []
    for what, defence in _STEPS:
        row = [what]
        for alpha in runs.alphas:
            clean = runs.honest_without_attack(alpha, what, defence)
            row.append(f"{clean:.1f} ({runs.flagged(alpha, attacked, what, False, defence):.1f})")
            if not what.endswith("alert") and clean > TARGET:
                misses.append(f"{what} at {_skew(alpha)}, {clean:.1f} %")
        rows.append(row)
    return [
        "Percent of the honest updates that a step rejects or alerts on, without attack and, in brackets, on average "
        "under the attacks. Alerts reject nothing. Functional alerts and quarantine: of the runs with a canary.",
        "",
        *table(["honest sites", *map(_skew, runs.alphas)], rows),
        f"Steps that reject, above the target of {TARGET:g} % without attack: {'; '.join(misses) or 'none'}.",
        "",
    ]


def _true_positives(runs: Runs) -> list[str]:
    mild, strong = runs.alphas[0], runs.alphas[-1]
    head = ["hostile sites", *(what for what, _ in _STEPS), "sites quarantined at the end"]
    rows = []
    for attack in runs.attacks:
        if attack != NONE.name:
            shares = [[runs.flagged(a, [attack], what, True, d) for a in (mild, strong)] for what, d in _STEPS]
            ended = [[r.screened[CANARY].quarantined[True] for r in runs.of(a, [attack])] for a in (mild, strong)]
            shares.append([_percent(sum(of), HOSTILE * len(of)) for of in ended])
            rows.append([attack, *(f"{low:.0f} → {high:.0f}" for low, high in shares)])
    return [
        f"Percent of the hostile updates that each step marks, {_skew(mild)} → {_skew(strong)}.",
        "",
        *table(head, rows),
    ]


def _functional(runs: Runs) -> list[str]:
    """Trigger gains of single updates at several thresholds, and of the whole training."""
    whats = [*(f"gain > {threshold}" for threshold in THRESHOLDS), LOSS]
    rows, gains = [], []
    for alpha in runs.alphas:
        honest = [f"{runs.honest_without_attack(alpha, what, RECOMMENDED):.1f}" for what in whats]
        rows.append([f"{_skew(alpha)}: honest, no attack", *honest])
        for attack in runs.backdoors:
            found = [f"{runs.flagged(alpha, [attack], what, True, RECOMMENDED):.0f}" for what in whats]
            rows.append([f"{_skew(alpha)}: hostile, {attack}", *found])
        without = max(r.outcomes[RECOMMENDED].gain for r in runs.of(alpha, runs.untargeted))
        smallest = [min(r.outcomes[RECOMMENDED].gain for r in runs.of(alpha, [a])) for a in runs.backdoors]
        gains.append([_skew(alpha), *(f"{gain:.2f}" for gain in (without, *smallest))])
    return [
        "### The functional check",
        "",
        "Percent of the updates within the norm cap, one by one, that gain more than so much with a trigger of the "
        f"suite, or raise the loss on the canary data by more than {LIMITS.max_loss_increase:g} nat; measured while "
        f"nothing acts on it ({RECOMMENDED}).",
        "",
        *table(["", *whats], rows),
        "The same gain of the last model against the base, that is of the whole training at once: the largest of all "
        "runs without a backdoor, and the smallest of those with each.",
        "",
        *table(["", "no backdoor, largest", *(f"{attack}, smallest" for attack in runs.backdoors)], gains),
    ]


def _unchanged(runs: Runs) -> list[str]:
    rows = []
    for defence in (RECOMMENDED, CANARY):
        for alpha in runs.alphas:
            row = [f"{defence}, {_skew(alpha)}"]
            for attack in runs.attacks:
                screened = [r.screened[defence] for r in runs.of(alpha, [attack])]
                row.append(f"{_percent(sum(s.unchanged for s in screened), sum(s.rounds for s in screened)):.0f}")
            rows.append(row)
    return [
        f"Percent of the rounds that change nothing: more than {HOSTILE} updates rejected, or the candidate refused.",
        "",
        *table(["defence", *runs.attacks], rows),
    ]


def _left_out(runs: Runs) -> list[str]:
    attacked = [name for name in runs.attacks if name != NONE.name]
    weighing = [name for name in runs.defences if any(name in r.left_out for r in runs.results)]
    rows = []
    for name in weighing:
        row = [name]
        for alpha in runs.alphas:
            clean = runs.left_out(alpha, [NONE.name], name, None)
            honest, hostile = (runs.left_out(alpha, attacked, name, of) for of in (False, True))
            row.append(f"{clean:.0f} ({honest:.0f}, {hostile:.0f})")
        rows.append(row)
    return [
        "## Whom the rules leave out",
        "",
        "Of the rules that are weighted sums: percent of the honest updates with less than "
        f"{LEAST_SHARE:g} of an equal weight without attack and, in brackets, of the honest and of the hostile ones on "
        "average under the attacks.",
        "",
        *table(["rule", *map(_skew, runs.alphas)], rows),
    ]


def _percent(part: float, whole: float) -> float:
    return 100 * part / whole if whole else 0.0


def _rounded(values: Iterable[float]) -> list[str]:
    return [f"{value:.0f}" for value in values]


def _skew(alpha: float) -> str:
    return "IID" if alpha == float("inf") else f"Dirichlet α = {alpha:g}"
