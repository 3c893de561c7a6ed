"""The cost of a round with 10, 100 and 1,000 sites."""
