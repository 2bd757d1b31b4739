"""HOPE: self-modifying Titans and a Continuum Memory System in one model that learns while it reads.

Read the files in this order: `readout` (what a layer would predict if the model ended here), `level` (one MLP that
learns from it), `stretch` and `first_order` (how it reads a stretch of a stream, and what the outer loop learns from
that), `continuum` (the chain of levels), `reference` (the same, token by token, by autograd), `block`, `config`,
`levels` (hold or reset them by name), `model`, `generate`.
"""

from nlcore.hope.block import ContinuumBlock, HopeAttentionBlock, HopeBlock
from nlcore.hope.config import HopeConfig
from nlcore.hope.continuum import TokenContinuum
from nlcore.hope.generate import Generated, generate, load_stream, save_stream, stream
from nlcore.hope.levels import reset
from nlcore.hope.model import HopeLM, TransformerLM

__all__ = [
    "ContinuumBlock",
    "Generated",
    "HopeAttentionBlock",
    "HopeBlock",
    "HopeConfig",
    "HopeLM",
    "TokenContinuum",
    "TransformerLM",
    "generate",
    "load_stream",
    "reset",
    "save_stream",
    "stream",
]
