"""Garbage collection that does not hold the event loop up."""

from __future__ import annotations

import gc

_THRESHOLDS = (1_500, 4, 1_000)
"""Bounds of the generations: one collection of the two young ones visits some 6,000 objects at most. With bounds of
10,000 and 10 these may be 100,000, which takes 0.1 s."""


def tame() -> None:
    """Leave what the imports made out of every later collection, and collect everything seldom.

    A full collection holds all threads up for as long as it takes to visit every object: half of what a process has
    was made by imports and stays, and what the cache drops goes by its reference count. Call it once, when the modules
    are loaded.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_THRESHOLDS)
