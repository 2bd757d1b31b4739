"""Memories whose starts are learned through their own learning: chains of fast weights, and the contest of them."""

from nlcore.meta.chain import Chain, Reading, Start, new_start, read
from nlcore.meta.learning import examine, meta_learn, search

__all__ = ["Chain", "Reading", "Start", "examine", "meta_learn", "new_start", "read", "search"]
