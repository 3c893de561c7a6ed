"""What to do next, given what is observed and the time. Pure: no I/O, no clock, no Kubernetes. Start at `round`."""
