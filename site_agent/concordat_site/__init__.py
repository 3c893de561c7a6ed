"""The site agent: consents, stages, judges and signs for one site (or for the evaluator), in its own namespace."""
