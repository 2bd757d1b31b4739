"""Memories of gradients. Each is a `torch.optim.Optimizer` built on the write rules of `nlcore.memory`.

Read them in this order: `sgd` (one memory, the weights), `momentum` (a second memory, of past gradients), `adam`
(a third, of their squares).
"""

from nlcore.optimizers.adam import Adam, AdamW
from nlcore.optimizers.base import MemoryOptimizer
from nlcore.optimizers.momentum import Momentum
from nlcore.optimizers.sgd import SGD

__all__ = ["SGD", "Adam", "AdamW", "MemoryOptimizer", "Momentum"]
