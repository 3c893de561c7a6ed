"""Lineage: whether a release is what its federation agreed on, decided offline from signed statements. Pure: no I/O."""

from concordat.lineage.bundle import bundle
from concordat.lineage.errors import LineageError, SiteRefused
from concordat.lineage.trust import Trust
from concordat.lineage.verify import Lineage, verify_candidate, verify_release

__all__ = ["Lineage", "LineageError", "SiteRefused", "Trust", "bundle", "verify_candidate", "verify_release"]
