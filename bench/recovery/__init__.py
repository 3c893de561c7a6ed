"""How long a crash of the operator costs, and what of a round is nobody's work."""
