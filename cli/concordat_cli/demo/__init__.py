"""The demo federation: five sites, one of them hostile, one demanding, and an evaluator, on a real Kubernetes."""
