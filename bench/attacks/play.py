"""One run: a federation under one attack, with every defence on the same batches, each with its own model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import lru_cache, partial

import numpy as np

from bench.attacks.defences import LIMITS, Defence, Screened, Situation, Weighed, defences
from bench.attacks.hostile import ATTACKS, FRAMING, NONE, Attack, Floats, Poison, View, mimic_victim
from bench.attacks.toy import HOSTILE, ROUNDS, SITES, SIZE, Federation, make

LAST = 5
"""Accuracy and success of a backdoor are means over the last rounds."""
_TOGETHER = 8
"""Defences trained in one batch: more would not fit the cache."""


@dataclass(frozen=True)
class Outcome:
    """How one defence fared: shares of the test examples."""

    accuracy: float
    success: float
    """Of the backdoor, with the attack's trigger; with the known trigger where the attack has none."""
    gain: float
    """Trigger gain of the last model against the base: the functional check, of the whole training at once."""


@dataclass(frozen=True)
class Found:
    """What screening found in one run, as `Screened` counts it."""

    found: Counter[tuple[str, bool]]
    asked: Counter[bool]
    unchanged: int
    alerted: int
    """Rounds with an alert of step 7."""
    rounds: int
    quarantined: Counter[bool]
    """Sites, by whether hostile, at the end."""


@dataclass(frozen=True)
class LeftOut:
    """Updates that a rule left out in one run, as `Weighed` counts them."""

    updates: Counter[bool]
    rounds: int


@dataclass(frozen=True)
class Result:
    """One run."""

    alpha: float
    seed: int
    attack: str
    declared: int
    """Faulty sites that the defences were to withstand."""
    outcomes: dict[str, Outcome]
    screened: dict[str, Found]
    """Of the defences that screen, by name."""
    left_out: dict[str, LeftOut]
    """Of the rules that give weights, by name."""


@dataclass(frozen=True)
class Setting:
    """A federation, and what a warm-up without attack tells of it."""

    federation: Federation
    cap: float
    """Twice the median norm of the warm-up's updates: what the contract would say."""
    victim: int
    """Of Mimic: a row of the honest updates."""
    course: Floats
    """(P,): of norm 1, the way that training goes."""


@lru_cache(maxsize=1)
def setting(alpha: float, seed: int) -> Setting:
    """The same for every attack."""
    federation = make(alpha, seed)
    model, history = np.zeros((1, SIZE), np.float32), []
    for number in range(ROUNDS):
        updates = federation.train(model, federation.batch(number, Poison.NOTHING))[0, :SITES]
        history.append(updates)
        model += updates.mean(axis=0)
    rounds = np.stack(history)
    cap = 2 * float(np.median(np.linalg.norm(rounds, axis=2)))
    return Setting(federation, cap, mimic_victim(rounds[:, HOSTILE:]), model[0] / float(np.linalg.norm(model[0])))


def play(alpha: float, seed: int, attack_name: str, declared: int = HOSTILE, only: Collection[str] = ()) -> Result:
    """All defences, or `only` these, under one attack; they are to withstand `declared` faulty sites."""
    attack = next(attack for attack in (*ATTACKS, *FRAMING) if attack.name == attack_name)
    at = setting(alpha, seed)
    # ByzFL draws from numpy's global generator.
    np.random.seed(seed)
    playing = {name: defence for name, defence in defences(declared).items() if not only or name in only}
    names = list(playing)
    outcomes: dict[str, Outcome] = {}
    for start in range(0, len(names), _TOGETHER):
        chosen = names[start : start + _TOGETHER]
        outcomes.update(zip(chosen, _play(at, seed, attack, [playing[name] for name in chosen]), strict=True))
    screened = {
        name: Found(d.found, d.asked, d.unchanged, d.alerted, d.rounds, Counter(s < HOSTILE for s in d.out(ROUNDS)))
        for name, d in playing.items()
        if isinstance(d, Screened)
    }
    left_out = {
        name: LeftOut(d.left_out, d.weighed) for name, d in playing.items() if isinstance(d, Weighed) and d.weighed
    }
    return Result(alpha, seed, attack_name, declared, outcomes, screened, left_out)


def _play(at: Setting, seed: int, attack: Attack, chosen: list[Defence]) -> list[Outcome]:
    federation = at.federation
    trigger = federation.unlisted if attack.poison is Poison.UNLISTED else federation.known
    models = np.zeros((len(chosen), SIZE), np.float32)
    steps = np.zeros_like(models)
    accuracies, successes = [], []
    reached = np.zeros(len(chosen))
    for number in range(ROUNDS):
        updates = federation.train(models, federation.batch(number, attack.poison))
        for i, defence in enumerate(chosen):
            rows = clipped(updates[i, :SITES], at.cap)
            situation = Situation(rows, models[i], steps[i].copy(), at.cap, updates[i, SITES], number, federation)
            if attack is not NONE:
                view = View(
                    honest=rows[HOSTILE:],
                    own=rows[:HOSTILE],
                    previous=situation.previous,
                    cap=at.cap,
                    victim=at.victim,
                    course=at.course,
                    success=float(reached[i]),
                    rng=np.random.default_rng([seed, number]),
                    answer=partial(_answer, defence, situation),
                    weakest=partial(_weakest, federation, models[i], rows[HOSTILE:]),
                )
                situation = replace(situation, rows=np.concatenate([attack.craft(view), rows[HOSTILE:]]))
            steps[i] = defence(situation)
        models += steps
        if attack.backdoor:
            reached = federation.success(models, trigger)
        if number >= ROUNDS - LAST:
            accuracies.append(federation.accuracy(models))
            successes.append(federation.success(models, trigger))
    gains = federation.functional(np.zeros(SIZE, np.float32), models)
    return [
        Outcome(float(accuracy), float(success), gain.trigger_gain)
        for accuracy, success, gain in zip(np.mean(accuracies, 0), np.mean(successes, 0), gains, strict=True)
    ]


def _answer(defence: Defence, situation: Situation, hostile: Floats) -> Floats:
    """What the defence would make of these hostile updates; it does not remember."""
    asked = defence.asked_by_an_attacker() if isinstance(defence, Screened) else defence
    rows = np.concatenate([hostile, situation.rows[len(hostile) :]])
    return asked(replace(situation, rows=rows))


def _weakest(federation: Federation, parent: Floats, honest: Floats) -> int:
    """The row of honest updates (h, P) that comes nearest to a limit of the functional check."""
    found = federation.functional(parent, honest)
    shares = [max(f.loss_change / LIMITS.max_loss_increase, f.trigger_gain / LIMITS.max_trigger_gain) for f in found]
    return int(np.argmax(shares))


def clipped(rows: Floats, cap: float) -> Floats:
    """What sites do before they sign: rows (n, P) of norm at most `cap`."""
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows * np.minimum(1, cap / np.maximum(norms, np.finfo(np.float32).tiny)), dtype=np.float32)
