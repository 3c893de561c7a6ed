"""The hub's control plane: it selects, contracts, launches, verifies, aggregates and releases. It cannot adopt."""

VERSION = "0.1.0"
