"""Memories of gradients. Each is a `torch.optim.Optimizer` built on the write rules of `nlcore.memory`.

Read them in this order: `sgd` (one memory, the weights), `momentum` (a second memory, of past gradients), `adam`
(a third, of their squares); then the better memories: `delta_momentum` (a memory that corrects itself), `orthogonal`,
`minimax` and `muon` (one that is read with every direction alike), `multiscale` (a slow memory beside the fast one),
`m3` (both), `deep_momentum` (a network as memory) and `dgd` (weights that correct themselves). `periodic` lets any of
them step at its own period.
"""

from nlcore.optimizers.adam import Adam, AdamW
from nlcore.optimizers.base import MemoryOptimizer
from nlcore.optimizers.deep_momentum import DeepMomentum
from nlcore.optimizers.delta_momentum import DeltaMomentum
from nlcore.optimizers.dgd import DGD
from nlcore.optimizers.m3 import M3
from nlcore.optimizers.momentum import Momentum
from nlcore.optimizers.multiscale import MultiscaleMomentum
from nlcore.optimizers.muon import Muon
from nlcore.optimizers.orthogonal import newton_schulz
from nlcore.optimizers.periodic import PeriodicOptimizer
from nlcore.optimizers.sgd import SGD

__all__ = [
    "DGD",
    "M3",
    "SGD",
    "Adam",
    "AdamW",
    "DeepMomentum",
    "DeltaMomentum",
    "MemoryOptimizer",
    "Momentum",
    "MultiscaleMomentum",
    "Muon",
    "PeriodicOptimizer",
    "newton_schulz",
]
