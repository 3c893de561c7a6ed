"""What a round costs with 10, 100 and 1,000 sites."""
