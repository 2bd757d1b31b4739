"""Watch a model read a stream: what each token costs, and how far each level moves, stretch after stretch.

The stream of the course is A | B | A: a rule or a text, another one, the first again. Who learns while reading gets
better within a part, pays at the switch, and shows on the way back what it has kept.

Source    Behrouz et al. 2025, Nested Learning, Definition 2: levels are told apart by how often they are written.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from nlcore.hope.block import HopeBlockState
from nlcore.hope.level import FastWeights
from nlcore.hope.model import HopeLM
from nlcore.optimizers.checks import check_count
from nlcore.sequence.layers.frame import MixerState
from nlcore.sequence.self_modifying import SelfModifyingTitans


class Watched(NamedTuple):
    """A stream as it was read.

    Args     nats: (T,), what each token but the first costs, the mean over streams. moved: for each level that a stream
             can write, by its name in `model.levels()`, (ceil(T / piece),): the length of the change of its numbers in
             each piece, the mean over streams; 0 where it was not written.
    """

    nats: Tensor
    moved: dict[str, Tensor]


@torch.no_grad()
def watch(model: HopeLM, tokens: Tensor, piece: int = 8, **reading: Any) -> Watched:
    """Read streams from their beginning, each token predicted before it is read.

    Args     model: as in `HopeLM`. tokens: (B, T + 1). piece: tokens read between two looks at the levels. reading:
             other arguments of the model, such as frozen=("cms 2",).
    Raises   ValueError for fewer than two tokens, or as the model.
    """
    if tokens.ndim != 2 or tokens.shape[1] < 2:
        raise ValueError(f"expected streams (B, T + 1) of at least 2 tokens, got {tuple(tokens.shape)}")
    was_training, state = model.training, None
    model.eval()
    before, nats, rows = written(model, None, len(tokens)), [], []
    cuts = (line.split(check_count("piece", piece), 1) for line in (tokens[:, :-1], tokens[:, 1:]))
    for now, following in zip(*cuts, strict=True):
        logits, state = model(now, state, **reading)
        nats.append(cross_entropy(logits.mT, following, reduction="none").mean(0))
        after = written(model, state, len(tokens))
        rows.append({name: (numbers - before[name]).norm(dim=1).mean() for name, numbers in after.items()})
        before = after
    model.train(was_training)
    return Watched(torch.cat(nats), {name: torch.stack([row[name] for row in rows]) for name in before})


def there_and_back(a: Tensor, b: Tensor, length: int, count: int, generator: torch.Generator) -> Tensor:
    """Return streams A | B | A of two texts: a place in A, a place in B, and on in A where it was left.

    Args     a, b: (N,), the tokens of the texts. length: of each part. count: B, how many. generator: draws the places.
    Returns  tokens (B, 3 length + 1); the last token is only predicted.
    Raises   ValueError for a text that is too short.
    """
    needed = {"A": (a, 2 * length + 1), "B": (b, length)}
    for name, (text, least) in needed.items():
        if text.ndim != 1 or len(text) < least:
            raise ValueError(f"text {name} needs at least {least} tokens for parts of {length}, got {len(text)}")
    (from_a, from_b) = (
        torch.randint(len(text) - least + 1, (count, 1), generator=generator) + torch.arange(least)
        for text, least in needed.values()
    )
    first, again = a[from_a].split([length, length + 1], 1)
    return torch.cat([first, b[from_b], again], 1)


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
