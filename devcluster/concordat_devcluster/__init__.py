"""A complete Kubernetes on one Linux machine, from pinned Go modules, and the images that run on it."""
