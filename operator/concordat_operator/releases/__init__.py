"""Releases and their copies in the namespaces of sites and evaluators."""
