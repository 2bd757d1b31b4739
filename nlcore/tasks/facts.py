r"""Facts that arrive one by one, and what a memory still knows of them at the end: anterograde amnesia in the small.

A fact is a pair: a key, and one of a few codes as its value. A slow memory W holds old facts. New facts pass by once;
a window holds the newest of them word for word, and fast weights F may write each down:

    F <- alpha F + eta v k^T                    Hebbian
    F <- alpha F + eta (v - W k - F k) k^T      delta, with the error shared by W and F
    answer to k                                 from the window if k stands in it, else (W + F) k

Symbols   W slow, F fast, shape (S, d, d), one for each of S worlds side by side; k key, v value; eta = lr, the strength
          of a write; alpha = retain, the part of F that survives a write.
Source    Behrouz et al. 2025, Nested Learning, section 1 (amnesia), Def. 1 (Eq. 6), Eq. 5; the task is ours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nlcore.memory import delta, read

Write = Callable[..., Tensor]
DELAY_EDGES = (0, 16, 32, 64, 128)
SAME_KEY = 1.0 - 1e-5  # unit keys with a larger dot product are the same key; random keys stay far below


@dataclass(frozen=True)
class Facts:
    """Facts of S worlds: `keys` (S, n, d) and `codes` (S, m, d) of length 1; `labels` (S, n), the code of each key."""

    keys: Tensor
    labels: Tensor
    codes: Tensor

    @property
    def values(self) -> Tensor:
        """The code that belongs to each key, shape (S, n, d)."""
        return self.codes.take_along_dim(self.labels.unsqueeze(-1), dim=1)

    def __len__(self) -> int:
        return self.keys.shape[1]

    def __getitem__(self, span: slice) -> Facts:
        """Return a part of the facts of every world."""
        if not isinstance(span, slice):
            raise TypeError(f"Facts are cut with a slice, like facts[:24] or facts[-1:]; got {span!r}")
        return Facts(self.keys[:, span], self.labels[:, span], self.codes)


@dataclass(frozen=True)
class Outcome:
    """What is known at the end: `by_delay` (S, bins), part of the new facts recalled, the newest first; `old` (S,)."""

    by_delay: Tensor
    old: Tensor


def random_facts(
    count: int,
    dim: int = 64,
    codes: int = 64,
    seeds: Iterable[int] = range(20),
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Facts:
    """Return `count` random facts for each seed: random unit keys, each with one of `codes` random unit codes.

    Args     count: facts a world. dim: length of keys and codes. codes: how many different values there are.
             seeds: one world each. dtype, device: of keys and codes; labels are int64.
    Raises   ValueError if a size is not positive or there is no seed.
    """
    worlds = [_world(count, dim, codes, generator) for generator in _generators(seeds)]
    keys, labels, values = (torch.stack(part) for part in zip(*worlds, strict=True))
    return Facts(keys.to(device, dtype), labels.to(device), values.to(device, dtype))


def _world(count: int, dim: int, codes: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    values = _unit(codes, dim, generator)
    return _unit(count, dim, generator), torch.randint(codes, (count,), generator=generator), values


def best_memory(keys: Tensor, values: Tensor) -> Tensor:
    """Return the argmin over M of sum_i |M k_i - v_i|^2: the matrix that answers all keys best.

    Args     keys: (..., n, d_k). values: (..., n, d_v).
    Returns  M, shape (..., d_v, d_k), the smallest if several are best. Up to d_k independent keys are
             answered exactly.
    Raises   ValueError if the shapes do not fit.
    Source   Def. 1, Eq. 6, with the squared error as objective.
    """
    _check_pairs(keys, values)
    return (torch.linalg.pinv(keys) @ values).mT


def fast_weights(
    slow: Tensor,
    keys: Tensor,
    values: Tensor,
    write: Write = delta,
    lr: float = 1.0,
    retain: float = 1.0,
    share_error: bool = True,
) -> Tensor:
    """Write the pairs one by one into fast weights that start empty, and return them; `slow` stays.

    Args     slow: (..., d_v, d_k). keys: (..., n, d_k). values: (..., n, d_v). write: a rule of
             `nlcore.memory`. lr, retain: passed to it. share_error: if true, write only what
             `slow` does not answer already, v - W k.
    Returns  F, the shape of `slow`.
    Raises   ValueError if the shapes do not fit.
    """
    _check_pairs(keys, values)
    fast = torch.zeros_like(slow)
    for k, v in zip(keys.unbind(-2), values.unbind(-2), strict=True):
        wanted = v - read(slow, k) if share_error else v
        fast = write(fast, k, wanted, lr, retain)
    return fast


def answers(memory: Tensor, keys: Tensor, window: Facts | None = None) -> Tensor:
    """Answer each key: word for word if it stands in the window (the newest, if twice), else from the memory.

    Args     memory: (S, d, d). keys: (S, n, d), of length 1. window: facts that are still in sight.
    Returns  answers, shape (S, n, d).
    """
    from_memory = keys @ memory.mT
    if window is None or len(window) == 0:
        return from_memory
    same = keys @ window.keys.mT > SAME_KEY  # (S, n, facts in the window)
    place = torch.where(same, torch.arange(len(window), device=keys.device), -1).amax(-1, keepdim=True)
    from_window = window.values.take_along_dim(place.clamp(min=0), dim=1)
    return torch.where(place >= 0, from_window, from_memory)


def recalled(answers: Tensor, facts: Facts) -> Tensor:
    """Say for each answer whether its nearest code is the right one, booleans of shape (S, n).

    All codes have length 1, so the nearest one is the one with the largest dot product.

    Args     answers: (S, n, d). facts: those that were asked for.
    """
    return (answers @ facts.codes.mT).argmax(-1) == facts.labels


def by_delay(right: Tensor, edges: Sequence[int] = DELAY_EDGES) -> Tensor:
    """Return the part of the facts recalled, by delay: how many facts came after this one.

    Args     right: (S, n) booleans, the oldest fact first. edges: first delay of each bin, rising from 0.
    Returns  shape (S, bins), the newest facts first; the last bin takes all that are older.
    Raises   ValueError if the edges do not rise from 0 or a bin would be empty.
    """
    stops = [*edges[1:], right.shape[-1]]
    if not edges or edges[0] != 0 or any(stop <= start for start, stop in zip(edges, stops, strict=True)):
        raise ValueError(f"edges rise from 0 and end below the {right.shape[-1]} facts there are, got {list(edges)}")
    newest_first = right.double().flip(-1)
    bins = [newest_first[..., start:stop].mean(-1) for start, stop in zip(edges, stops, strict=True)]
    return torch.stack(bins, dim=-1)


def amnesia(
    old: Facts,
    new: Facts,
    write: Write = delta,
    lr: float = 1.0,
    retain: float = 1.0,
    share_error: bool = True,
    window: int = 16,
) -> Outcome:
    """Store the old facts in a slow memory, let the new ones pass by once, then ask for all of them.

    Args     old: held by the slow memory from the start. new: arrive one by one. write, lr, retain,
             share_error: as in `fast_weights`; lr = 0 is a frozen model. window: how many of the
             newest facts are still in sight.
    Returns  Outcome: recall of the new facts by delay, and of the old facts, for each world.
    Raises   ValueError as in `exam`.
    """
    slow = best_memory(old.keys, old.values)
    memory = slow + fast_weights(slow, new.keys, new.values, write, lr, retain, share_error)
    return exam(memory, old, new, window)


def exam(memory: Tensor, old: Facts, new: Facts, window: int = 16, edges: Sequence[int] = DELAY_EDGES) -> Outcome:
    """Ask a memory, with a window on the newest facts, for all facts.

    Args     memory: (S, d, d). old, new: what is asked. window: facts in sight. edges: as in `by_delay`.
    Raises   ValueError if the window is not between 0 and len(new), or as in `by_delay`.
    """
    if not 0 <= window <= len(new):
        raise ValueError(f"the window holds 0 to {len(new)} of the new facts, got {window}")
    in_sight = new[len(new) - window :]
    right = recalled(answers(memory, new.keys, in_sight), new)
    kept = recalled(answers(memory, old.keys, in_sight), old)
    return Outcome(by_delay(right, edges), kept.double().mean(-1))


def linked_pairs(
    count: int, rule: bool, dim: int = 32, seeds: Iterable[int] = range(20), dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor]:
    """Return keys with values that follow a rule, v = W* k with a hidden random W*, or with random values.

    Args     count: pairs a world. rule: true for v = W* k. dim, dtype: of both. seeds: one world each.
    Returns  keys of length 1 and values of length about 1, both of shape (S, count, dim).
    Raises   ValueError if a size is not positive or there is no seed.
    """
    worlds = [_linked(count, dim, rule, generator) for generator in _generators(seeds)]
    keys, values = (torch.stack(part).to(dtype) for part in zip(*worlds, strict=True))
    return keys, values


def _linked(count: int, dim: int, rule: bool, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    keys = _unit(count, dim, generator)
    if not rule:
        return keys, _unit(count, dim, generator)
    hidden = torch.randn(dim, dim, generator=generator, dtype=torch.float64) / dim**0.5
    return keys, keys @ hidden.mT


def relative_error(memory: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Return sum_i |M k_i - v_i|^2 / sum_i |v_i|^2 for each world: 0 is perfect, an empty memory has 1.

    Args     memory: (..., d_v, d_k). keys: (..., n, d_k). values: (..., n, d_v).
    Returns  the leading shape of `memory`.
    """
    return (keys @ memory.mT - values).square().sum((-2, -1)) / values.square().sum((-2, -1))


def _unit(count: int, dim: int, generator: torch.Generator) -> Tensor:
    if count < 1 or dim < 1:
        raise ValueError(f"expected at least 1 vector with at least 1 number, got {count} with {dim}")
    drawn = torch.randn(count, dim, generator=generator, dtype=torch.float64)
    return drawn / drawn.norm(dim=-1, keepdim=True)


def _generators(seeds: Iterable[int]) -> list[torch.Generator]:
    if isinstance(seeds, int):
        raise TypeError(f"seeds are several numbers, one world each; try seeds=range({max(seeds, 1)})")
    if not (made := [torch.Generator().manual_seed(seed) for seed in seeds]):
        raise ValueError("there is no seed: each seed is one world, for example seeds=range(20)")
    return made


def _check_pairs(keys: Tensor, values: Tensor) -> None:
    if keys.ndim < 2 or values.ndim < 2 or keys.shape[:-1] != values.shape[:-1]:
        given = f"{tuple(keys.shape)} and {tuple(values.shape)}"
        raise ValueError(f"expected keys (..., n, d_k) and values (..., n, d_v), got {given}")
