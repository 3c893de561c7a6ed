"""What can be wrong with a lineage."""


class LineageError(Exception):
    """The lineage does not hold, or the keys to verify it by cannot be read. The message says why, in one sentence."""
