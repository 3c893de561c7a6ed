"""An API server and a registry in memory, for scenarios. What they carry also runs on the real ones."""
