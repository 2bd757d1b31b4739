"""A stream whose rule changes: who learns while reading predicts well, is wrong after a switch, and recovers.

    x_{t+1} = f(x_t) with probability 0.8, else any symbol             f a random permutation of 16 symbols

f is drawn anew for each sequence, so it cannot be known before reading. At a switch another f takes over; it may be
one that was there before (A | B | A). Asked at every position: the next symbol. A guess costs ln 16 = 2.77 nats, who
knows f pays 0.99 (`best_loss`).

Symbols   B sequences of T tokens, S symbols.
Source    the task is ours; learning in the forward pass is the subject of Nested Learning, sections 3 and 8.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from nlcore.tasks.tokens import TokenBatch, check_rows, shuffles, whole_rows

SYMBOLS = 16
FOLLOW = 0.8
ABA = (("A", 96), ("B", 96), ("A", 96))
TRAINED_LENGTH = 160


def switching(
    batch_size: int,
    generator: torch.Generator,
    *,
    segments: Sequence[tuple[str, int]] = ABA,
    symbols: int = SYMBOLS,
    follow: float = FOLLOW,
    device: torch.device | str = "cpu",
) -> TokenBatch:
    """Return streams that follow one rule after the other; each sequence has its own rules.

    Args     batch_size: B. generator: draws everything, on the CPU. segments: name of the rule and number of
             predictions made under it, for each segment; the same name is the same f. symbols: S >= 2. follow:
             probability of x_{t+1} = f(x_t); otherwise each of the S symbols is equally likely, f(x_t) too.
             device: of the batch.
    Returns  tokens (B, T), T the sum of the lengths, and the next symbol at every position. The last target of a
             segment was still made by its rule.
    Raises   ValueError for no segment, an empty one, fewer than 2 symbols or a probability outside [0, 1].
    """
    check_rows(batch_size, generator)
    if not segments or min(length for _, length in segments) < 1 or symbols < 2 or not 0 <= follow <= 1:
        raise ValueError(
            "expected segments like ('A', 96), lengths >= 1, symbols >= 2 and follow in [0, 1]; "
            f"got {tuple(segments)}, {symbols} and {follow}"
        )
    names = list(dict.fromkeys(name for name, _ in segments))
    rules = {name: shuffles(batch_size, symbols, generator) for name in names}
    T = sum(length for _, length in segments)
    drawn = torch.randint(symbols, (batch_size, T + 1), generator=generator)
    follows = torch.rand(batch_size, T, generator=generator, dtype=torch.float64) < follow
    x, stream = drawn[:, 0], [drawn[:, 0]]
    steps = (rules[name] for name, length in segments for _ in range(length))
    for f, keep, other in zip(steps, follows.unbind(1), drawn[:, 1:].unbind(1), strict=True):
        x = torch.where(keep, f.gather(1, x[:, None])[:, 0], other)
        stream.append(x)
    stream_ = torch.stack(stream, 1)
    return whole_rows(stream_[:, :-1].contiguous(), stream_[:, 1:].contiguous(), device)


def one_switch(
    batch_size: int,
    generator: torch.Generator,
    *,
    length: int = TRAINED_LENGTH,
    device: torch.device | str = "cpu",
) -> TokenBatch:
    """Return streams A | B for training; the switch is somewhere in the middle half, at one place for the batch.

    Args     length: T >= 4. batch_size, generator, device: as in `switching`.
    Raises   ValueError if the length is below 4.
    """
    check_rows(batch_size, generator)
    if length < 4:
        raise ValueError(f"a stream with a switch needs at least 4 tokens, got {length}")
    switch = int(torch.randint(length // 4, length - length // 4 + 1, (), generator=generator))
    segments = (("A", switch), ("B", length - switch))
    return switching(batch_size, generator, segments=segments, device=device)


def best_loss(symbols: int = SYMBOLS, follow: float = FOLLOW) -> float:
    """Return the nats a prediction costs for who knows f: the entropy of the next symbol."""
    other = (1 - follow) / symbols
    chances = [follow + other] + [other] * (symbols - 1)
    return -sum(p * math.log(p) for p in chances if p > 0)


class Course(NamedTuple):
    """How the loss of one segment goes, in nats: `start`, mean of its first predictions; `end`, of its last."""

    start: float
    end: float


def by_segment(nats: Tensor, segments: Sequence[tuple[str, int]] = ABA, first: int = 8, last: int = 32) -> list[Course]:
    """Cut a curve of losses at the switches.

    Args     nats: (T,), the mean loss at each position. segments: as given to `switching`. first, last: how many
             predictions are averaged at the start and at the end of a segment (all, if it is shorter).
    Returns  a Course for each segment.
    Raises   ValueError if the lengths do not add up to T.
    """
    lengths = [length for _, length in segments]
    if nats.ndim != 1 or sum(lengths) != len(nats):
        raise ValueError(f"expected the loss at each of {sum(lengths)} positions, got the shape {tuple(nats.shape)}")
    return [Course(float(part[:first].mean()), float(part[-last:].mean())) for part in nats.split(lengths)]
