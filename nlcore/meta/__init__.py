"""Memories whose starts are learned through their own learning: chains of fast weights, and the contest of them."""

from nlcore.meta.chain import Chain, Start, new_start
from nlcore.meta.learning import examine, meta_learn, search
from nlcore.meta.reading import Reading, read

__all__ = ["Chain", "Reading", "Start", "examine", "meta_learn", "new_start", "read", "search"]
