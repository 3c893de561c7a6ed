"""The attack suite: what each aggregation rule withstands, on a federation small enough to run in minutes."""
