"""Memories of tokens as layers: projections, convolution, gates and output around them, and all of them by name."""

from nlcore.sequence.layers.gru import GRU
from nlcore.sequence.layers.memories import DeltaRule, LinearAttention, SoftmaxAttention
from nlcore.sequence.layers.named import mixer, named_model
from nlcore.sequence.layers.titans import Titans

__all__ = ["GRU", "DeltaRule", "LinearAttention", "SoftmaxAttention", "Titans", "mixer", "named_model"]
