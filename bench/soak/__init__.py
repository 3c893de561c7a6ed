"""Many short rounds with random faults: what must hold holds, and nothing grows."""
