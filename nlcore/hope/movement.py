"""How far each level of a model moves while it reads: a stretch after a stretch, level by level.

Source    Behrouz et al. 2025, Nested Learning, Definition 2: levels are told apart by how often they are written.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from nlcore.hope.block import HopeBlockState
from nlcore.hope.level import FastWeights
from nlcore.hope.model import HopeLM
from nlcore.optimizers.checks import check_count
from nlcore.sequence.layers.frame import MixerState
from nlcore.sequence.self_modifying import SelfModifyingTitans


@torch.no_grad()
def movement(model: HopeLM, tokens: Tensor, piece: int = 8, **reading: Any) -> dict[str, Tensor]:
    """Return how far each level moves in each piece of a stream.

    Args     model: as in `HopeLM`. tokens: (B, T). piece: tokens read between two looks. reading: other arguments of
             the model, such as frozen=("cms 2",).
    Returns  for each level that a stream can write, by its name in `model.levels()`, (ceil(T / piece),): the length of
             the change of its numbers, the mean over streams. 0 where it was not written.
    Raises   ValueError as the model.
    """
    was_training, state = model.training, None
    model.eval()
    before, rows = written(model, None, len(tokens)), []
    for part in tokens.split(check_count("piece", piece), 1):
        state = model(part, state, **reading)[1]
        after = written(model, state, len(tokens))
        rows.append({name: (now - before[name]).norm(dim=1).mean() for name, now in after.items()})
        before = after
    model.train(was_training)
    return {name: torch.stack([row[name] for row in rows]) for name in before}


def written(model: HopeLM, state: Any, batch_size: int) -> dict[str, Tensor]:
    """Return the numbers of each level that a stream can write, (B, how many), as the stream left them.

    Args     model: as in `HopeLM`. state: of this model; None is before the first token. batch_size: B.
    """
    states = [None] * len(model.blocks) if state is None else state.blocks
    found: dict[str, Tensor] = {}
    for index, (block, now) in enumerate(zip(model.blocks, states, strict=True), 1):
        found |= {f"block {index}: {name}": part for name, part in _of_block(block, now, batch_size).items()}
    return found


def _of_block(block: Any, state: Any, B: int) -> dict[str, Tensor]:
    mixed, cms = state if isinstance(state, HopeBlockState) else (state, None)
    found = _of_titans(block.mixer, mixed, B) if isinstance(block.mixer, SelfModifyingTitans) else {}
    chain = getattr(block, "cms", None)
    if chain is None or chain.learns == "never":
        return found
    levels = [None] * len(chain.names) if cms is None else [level.learned for level in cms.levels]
    return found | {
        name: _flat(now, W1, W2, B) for name, now, W1, W2 in zip(chain.names, levels, chain.W1, chain.W2, strict=True)
    }


def _of_titans(mixer: SelfModifyingTitans, state: MixerState | None, B: int) -> dict[str, Tensor]:
    """Return the rows of each level of a self-modifying layer; its boxes are matrices."""
    S = mixer.start.expand(B, -1, -1, -1) if state is None else state.memory.S
    rows, boxes = mixer.rules.rows(mixer.width), set(mixer.rules.written)
    levels = [level.name for level in mixer.levels() if set(level.name.split()) <= boxes]
    return {name: torch.cat([S[:, :, rows[box]].flatten(1) for box in name.split()], 1) for name in levels}


def _flat(learned: FastWeights | None, W1: nn.Parameter, W2: nn.Parameter, B: int) -> Tensor:
    """Return what a level has learned, (B, numbers)."""
    if learned is None:
        return W1.new_zeros(B, W1.numel() + W2.numel())
    return torch.cat([part.expand(B, -1, -1).flatten(1) for part in learned], 1)
