"""The site agent: consents, stages, judges and signs for one site (or for the evaluator), in its own namespace."""

VERSION = "0.1.0"
"""What the agent says of itself in its Site's status."""

__all__ = ["VERSION"]
