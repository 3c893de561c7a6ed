"""One short reconcile per kind: observe, plan, act, write the status once."""
