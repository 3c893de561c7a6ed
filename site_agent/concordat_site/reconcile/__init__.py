"""One short reconcile per kind: observe, plan, one step, one status write."""
