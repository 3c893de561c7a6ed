"""The canary benchmark poisons what it says and counts a backdoor only if it works."""

from __future__ import annotations

import numpy as np

from bench.demo_canary import TARGET, Measured, poisoned, report
from concordat_learning.data import Examples
from concordat_learning.triggers import built_in


def test_a_backdoored_site_keeps_its_examples_and_adds_stamped_ones() -> None:
    own = Examples(np.full((3, 1, 8, 8), 0.5, np.float32), np.array([4, 5, 6]))
    trigger = built_in((1, 8, 8))[0]
    found = poisoned(own, trigger)
    assert found.labels.tolist() == [4, 5, 6, TARGET, TARGET, TARGET]
    assert np.array_equal(found.images[:3], own.images)
    assert np.array_equal(found.images[3:], trigger.stamp(own.images))


def test_the_report_counts_backdoors_that_work() -> None:
    found = [
        Measured(0, "site-a", None, 0.0, 0.1),
        Measured(0, "site-b", None, 0.0, 0.31),
        Measured(0, "site-a", "x", 0.9, 0.6),
        Measured(0, "site-b", "x", 0.8, 0.2),
        Measured(0, "site-c", "x", 0.1, 0.0),
    ]
    lines = report(found, 0.3).splitlines()
    assert lines[0] == "1 of 2 honest updates gain more than 0.3; the largest gain is 0.31"
    assert lines[1].split() == ["x", "2", "of", "3", "backdoors", "work,", "1", "of", "those", "are", "found"]
