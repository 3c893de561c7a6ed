"""Release channels: which release subscribers are offered."""
