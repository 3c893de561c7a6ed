"""Garbage collection that does not hold the event loop up."""

from __future__ import annotations

import gc

_THRESHOLDS = (1_500, 4, 1_000)
"""A collection of the two young generations visits what four of the youngest left: some 6,000 objects, in 20 ms. With
Python's own factor of ten, and ten thousand in the youngest, it took 0.15 s where a thousand sites wrote at once."""


def tame() -> None:
    """Leave what the imports made out of every later collection, and collect everything seldom.

    A full collection holds all threads up for as long as it takes to visit every object: half of what a process has
    was made by imports and stays, and what the cache drops goes by its reference count. Call it once, when the modules
    are loaded.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_THRESHOLDS)
