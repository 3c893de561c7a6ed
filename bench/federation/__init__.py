"""A federation to measure: real API server, registry and operator process; sites and nodes are played in this one."""
