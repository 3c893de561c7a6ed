"""Updates: consent, stage, gate, clip, submit."""
