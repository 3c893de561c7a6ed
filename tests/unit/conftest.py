"""Settings of the property tests."""

from __future__ import annotations

from hypothesis import settings

# A slow machine is no bug: how long an example takes decides nothing.
settings.register_profile("concordat", deadline=None)
settings.load_profile("concordat")
