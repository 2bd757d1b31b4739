"""A batch of token sequences: what is read, what is asked, and where each sequence ends.

Symbols   B sequences of T tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

NOT_ASKED = -100  # the target of a position that is not asked; cross_entropy leaves it out by itself


@dataclass(frozen=True)
class TokenBatch:
    """Tokens (B, T); targets (B, T), the right answer at each position or -100; lengths (B,), tokens before padding.

    Positions at and after a row's length are padding: their token is 0, and nothing is asked there.
    """

    tokens: Tensor
    targets: Tensor
    lengths: Tensor

    def __post_init__(self) -> None:
        """Check that the three fit together."""
        shapes = [tuple(part.shape) for part in (self.tokens, self.targets, self.lengths)]
        if len(shapes[0]) != 2 or shapes[1] != shapes[0] or shapes[2] != shapes[0][:1]:
            raise ValueError(f"expected tokens (B, T), targets (B, T), lengths (B,); got {', '.join(map(str, shapes))}")

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def asked(self) -> Tensor:
        """Where an answer is wanted, (B, T) booleans."""
        return self.targets != NOT_ASKED

    @property
    def padding(self) -> Tensor | None:
        """The lengths if some row is shorter than T, else None: what a model wants as `lengths`."""
        return None if bool((self.lengths == self.tokens.shape[1]).all()) else self.lengths

    def split(self, rows: int) -> list[TokenBatch]:
        """Return batches of at most so many rows, in order."""
        parts = zip(self.tokens.split(rows), self.targets.split(rows), self.lengths.split(rows), strict=True)
        return [TokenBatch(*part) for part in parts]

    def to(self, device: torch.device | str) -> TokenBatch:
        """Return the batch on another device."""
        return TokenBatch(self.tokens.to(device), self.targets.to(device), self.lengths.to(device))


def whole_rows(tokens: Tensor, targets: Tensor, device: torch.device | str) -> TokenBatch:
    """Return a batch without padding."""
    rows, T = tokens.shape
    return TokenBatch(tokens, targets, torch.full((rows,), T)).to(device)


def shuffles(rows: int, size: int, generator: torch.Generator) -> Tensor:
    """Return a random order of 0..size-1 for each row, (rows, size)."""
    return torch.rand(rows, size, generator=generator, dtype=torch.float64).argsort(-1)


def one_of(choices: Sequence[int], generator: torch.Generator) -> int:
    """Return one of the numbers, each as likely as the others."""
    return int(choices[int(torch.randint(len(choices), (), generator=generator))])


def check_rows(batch_size: int, generator: torch.Generator) -> None:
    """Raise an error unless there is at least one row and a generator to draw it with."""
    if batch_size < 1:
        raise ValueError(f"a batch has at least one sequence, got batch_size={batch_size}")
    if not isinstance(generator, torch.Generator):
        raise TypeError(f"expected a torch.Generator, got {generator!r}; try torch.Generator().manual_seed(0)")
