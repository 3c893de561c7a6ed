"""A site's policy in plain words, one sentence per rule, those included that say nothing."""

from __future__ import annotations

from collections.abc import Sequence

from concordat_agent.policy import Mode, SitePolicy, percent


def sentences(policy: SitePolicy, federations: Sequence[str] | None) -> list[str]:
    """Return what the policy says. `federations` are the site's, where they are known."""
    return [*_rounds(policy, federations), *_what_runs(policy), *_releases(policy)]


def _rounds(policy: SitePolicy, federations: Sequence[str] | None) -> list[str]:
    rules = policy.consent
    day, norm, hours = rules.max_wall_seconds_per_day, rules.max_clip_norm, rules.hours
    of = "the federations in the site's values" if federations is None else f"federation {' and '.join(federations)}"
    return [
        f"Rounds of {of} (federations).",
        f"One round asks for at most {rules.max_steps} steps (consent.maxSteps) and {rules.max_wall_seconds} s "
        "(consent.maxWallSeconds).",
        f"All rounds consented to within 24 hours together ask for {'any time' if day is None else f'at most {day} s'} "
        "(consent.maxWallSecondsPerDay).",
        f"The site consents {'at any time of day' if hours is None else f'from {hours}'} (consent.hours).",
        f"Images that may train: {', '.join(rules.allowed_images)} (consent.allowedImages).",
        f"The clipping norm of a round is {'any' if norm is None else f'at most {norm}'} (consent.maxClipNorm).",
        f"A local candidate is sent if it is at most {percent(policy.gates.max_regression_ppm)} worse than its parent "
        "(gates.maxRegressionPpm).",
    ]


def _what_runs(policy: SitePolicy) -> list[str]:
    bases, runtime_class = policy.allowed_bases, policy.required_runtime_class
    return [
        f"Base packages of rounds and releases: {'any' if bases is None else ', '.join(bases)} (allowedBases).",
        f"Jobs of rounds and releases run in {'any RuntimeClass' if runtime_class is None else runtime_class} "
        "(requiredRuntimeClass).",
    ]


def _releases(policy: SitePolicy) -> list[str]:
    judging = policy.judging
    adopted = "are adopted" if policy.adoption.mode is Mode.AUTOMATIC else "are measured and reported, never adopted"
    return [
        f"Releases are measured by {judging.image} (judging.image).",
        f"Good enough is a quality of at least {percent(judging.min_quality_ppm)} (judging.minQualityPpm), at most "
        f"{percent(judging.max_regression_ppm)} below what is in use (judging.maxRegressionPpm).",
        f"Releases that are good enough {adopted} (adoption.mode).",
    ]
