"""The time that a crash of the operator costs, and the time of a round in which nobody works."""
