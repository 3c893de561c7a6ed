"""Rounds: select, contract, wait, aggregate, evaluate, release."""
