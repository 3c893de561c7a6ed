"""The gateway: the only way to the artifact registry. It knows who asks, and lets each party do what is its own."""
