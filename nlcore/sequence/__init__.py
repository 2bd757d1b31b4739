"""Memories of tokens: attention, linear attention, the delta rule, Oja's rule, Titans, self-modifying Titans."""

from nlcore.sequence.memories import delta_rule, linear_attention, oja_rule
from nlcore.sequence.states import MemoryState
from nlcore.sequence.titans import titans_memory

__all__ = ["MemoryState", "delta_rule", "linear_attention", "oja_rule", "titans_memory"]
