"""HOPE: self-modifying Titans and a Continuum Memory System in one model that learns while it reads.

Read the files in this order: `readout` (what a layer would predict if the model ended here), `level` (one MLP that
learns from it), `stretch` and `first_order` (how it reads a stretch of a stream, and what the outer loop learns from
that), `continuum` (the chain of levels), `reference` (the same, token by token, by autograd), `block`, `config`,
`levels` (hold or reset them by name), `model`, `generate`; then `runs` (training that can be stopped anywhere),
`text` (a learner's own file) and `evaluation` (long streams, by position, and dynamic evaluation). Experiments:
`watching` (who moves when), `visits` (A | B | A), `contest` and `measures` (beside a Transformer).
"""

from nlcore.hope.block import ContinuumBlock, HopeAttentionBlock, HopeBlock
from nlcore.hope.config import HopeConfig
from nlcore.hope.continuum import TokenContinuum
from nlcore.hope.evaluation import (
    bits_by_position,
    by_stretch,
    dynamic_evaluation,
    read_stream,
    tuned_dynamic_evaluation,
)
from nlcore.hope.generate import Generated, generate, load_stream, save_stream, stream
from nlcore.hope.levels import reset
from nlcore.hope.model import HopeLM, TransformerLM
from nlcore.hope.runs import TokenRun, read_run
from nlcore.hope.text import TextRun

__all__ = [
    "ContinuumBlock",
    "Generated",
    "HopeAttentionBlock",
    "HopeBlock",
    "HopeConfig",
    "HopeLM",
    "TextRun",
    "TokenContinuum",
    "TokenRun",
    "TransformerLM",
    "bits_by_position",
    "by_stretch",
    "dynamic_evaluation",
    "generate",
    "load_stream",
    "read_run",
    "read_stream",
    "reset",
    "save_stream",
    "stream",
    "tuned_dynamic_evaluation",
]
