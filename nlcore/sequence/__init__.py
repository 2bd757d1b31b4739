"""Memories of tokens: attention, linear attention, the delta rule, Oja's rule, Titans, self-modifying Titans.

Functions on queries, keys, values and gates come first; layers wrap them; `TokenModel` is the small model around them.
"""

from nlcore.sequence.attention import CacheState, nadaraya_watson, softmax_attention
from nlcore.sequence.deep.memory import deep_titans_memory
from nlcore.sequence.deep.weights import DeepState, DeepWeights
from nlcore.sequence.layers.gru import GRU
from nlcore.sequence.layers.memories import DeltaRule, LinearAttention, SoftmaxAttention
from nlcore.sequence.layers.named import mixer, named_model
from nlcore.sequence.layers.titans import Titans
from nlcore.sequence.memories import delta_rule, linear_attention, oja_rule
from nlcore.sequence.model import Block, TokenModel
from nlcore.sequence.saving import as_plain, from_plain
from nlcore.sequence.self_modifying import SelfModifyingTitans, self_modifying_memory, transition_eigenvalue
from nlcore.sequence.states import MemoryState
from nlcore.sequence.titans import titans_memory

__all__ = [
    "GRU",
    "Block",
    "CacheState",
    "DeepState",
    "DeepWeights",
    "DeltaRule",
    "LinearAttention",
    "MemoryState",
    "SelfModifyingTitans",
    "SoftmaxAttention",
    "Titans",
    "TokenModel",
    "as_plain",
    "deep_titans_memory",
    "delta_rule",
    "from_plain",
    "linear_attention",
    "mixer",
    "nadaraya_watson",
    "named_model",
    "oja_rule",
    "self_modifying_memory",
    "softmax_attention",
    "titans_memory",
    "transition_eigenvalue",
]
