"""Titans with a deep memory: a small network that learns at test time, as a plain loop and in chunks."""

from nlcore.sequence.deep.memory import deep_titans_memory
from nlcore.sequence.deep.weights import DeepState, DeepWeights, new_deep_weights

__all__ = ["DeepState", "DeepWeights", "deep_titans_memory", "new_deep_weights"]
