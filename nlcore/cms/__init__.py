"""Continuum Memory System: a chain of small networks that learn while they read, each at its own frequency.

Read the files in this order: `blocks` (one network, other weights for every item of a batch), `state` (what a stream
has taught each level so far), `learning` (Eq. 71: the token loop, and beside it the form that reads whole chunks),
`settings` (periods, order, contexts), `continuum` (the three variants as one module).
"""

from nlcore.cms.continuum import ContinuumMemory
from nlcore.cms.learning import squared_error
from nlcore.cms.state import LevelState, StreamState

__all__ = ["ContinuumMemory", "LevelState", "StreamState", "squared_error"]
