"""Releases: verify, stage, adopt or reject."""
