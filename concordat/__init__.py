"""Concordat: federated adapter training on Kubernetes. This package is what all parties share; it imports no torch."""
