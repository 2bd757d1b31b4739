"""nlcore: Nested Learning from scratch. A model is a set of nested memories, each updated at its own frequency.

Read the rooms in this order: `memory` (what a memory is, how it is written), `trace` (who moved when, and how far),
`levels` (how often), `timescales` (several levels, one signal), `optimizers` (memories of gradients), `horizon` (how
far back they remember), `surprise` (what they write into a layer), `cms` (networks that learn while they read, at
several speeds), `tasks`, `training` and `stacked` (data, a loop, many loops at once), `metrics` (what was kept, what
was learned, how sure a number is), `continual` (how to keep old tasks), `files`, `sweeps`, `checkpoints` and
`contest` (what is stored, and fair comparisons of optimizers), `meta` (memories whose starts are learned),
`brainwaves` and `transfer` (the frequencies of a brain, and how one level learns from another), `sequence` (memories
of tokens: attention, the delta rule, Titans), `hope` (a model that learns while it reads), `course` (what teaches).

An independent teaching reimplementation of Behrouz, Razaviyayn, Zhong, Mirrokni, *Nested Learning: The Illusion of
Deep Learning Architectures*, NeurIPS 2025, arXiv 2512.24695; not by the authors of the paper.
"""

from importlib import import_module
from typing import Any

from nlcore import cms, levels, memory, metrics, optimizers, tasks, training

__version__ = "0.1.0"
__all__ = ["cms", "hope", "levels", "memory", "metrics", "optimizers", "sequence", "tasks", "training"]


def __getattr__(name: str) -> Any:
    """Load `sequence` and `hope` when they are asked for: importing nlcore stays quick."""
    if name in ("sequence", "hope"):
        return import_module(f"nlcore.{name}")
    raise AttributeError(f"module 'nlcore' has no attribute {name!r}")
