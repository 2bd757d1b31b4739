"""Rare items: an associative memory must learn common and rare facts, and has fewer dimensions than facts.

Item i has a key k_i and a value v_i, random directions of length one. The memory W answers a key by W k_i; the answer
should be more like v_i than like any other value: the logits are <v_j, W k_i>, the loss is their cross-entropy. Item i
comes with the frequency i^-exponent (Zipf's law).

With more items than dimensions the items share directions: they are in superposition. `one_hot` gives each item an
output coordinate of its own instead, which is what an optimizer that works coordinate by coordinate likes best.

Symbols   K items, d numbers in a key, e numbers in a value, S settings, R seeds; W (S, R, e, d).
Source    after Wang et al. 2025, Muon outperforms Adam in tail-end associative memory learning; the sizes are ours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class RareItems:
    """Keys (R, K, d), values (R, K, e) and frequencies (K,), the most frequent first; they sum to one."""

    keys: Tensor
    values: Tensor
    frequency: Tensor

    def gradient(self, W: Tensor, t: int = 0) -> Tensor:
        """Return the gradient of the mean cross-entropy over all items, shape of W."""
        return self._gradient(W, self.frequency[:, None])

    def minibatch(self, size: int, seed: int = 0) -> Callable[[Tensor, int], Tensor]:
        """Return a gradient function that draws `size` items by their frequency at each step, for each seed anew."""
        random = torch.Generator().manual_seed(seed)
        R, K, _ = self.keys.shape

        def gradient(W: Tensor, t: int) -> Tensor:
            drawn = torch.multinomial(self.frequency.cpu().expand(R, K), size, replacement=True, generator=random)
            counts = torch.zeros(R, K).scatter_add_(1, drawn, torch.ones(R, size))
            return self._gradient(W, (counts / size).to(self.keys)[..., None])

        return gradient

    def _gradient(self, W: Tensor, weight: Tensor) -> Tensor:
        error = torch.softmax(self.logits(W), dim=-1)  # (S, R, item, answer)
        error.diagonal(dim1=-2, dim2=-1).sub_(1.0)
        return self.values.mT @ (weight * error).mT @ self.keys

    def logits(self, W: Tensor) -> Tensor:
        """Return how much the answer to each key is like each value, (S, R, K, K)."""
        return self.keys @ W.mT @ self.values.mT

    def recalled(self, W: Tensor) -> Tensor:
        """Return which items the memory answers correctly, (S, R, K) of zeros and ones."""
        K = self.keys.shape[-2]
        return (self.logits(W).argmax(-1) == torch.arange(K, device=W.device)).to(W.dtype)

    def empty(self) -> Tensor:
        """Return the empty memory of each seed, (R, e, d)."""
        return self.keys.new_zeros(len(self.keys), self.values.shape[-1], self.keys.shape[-1])


def rare_items(
    seeds: Sequence[int],
    items: int = 128,
    width: int = 48,
    exponent: float = 1.5,
    one_hot: bool = False,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> RareItems:
    """Return K = `items` facts with keys and values of `width` numbers, for each seed others.

    Args     seeds: R whole numbers. exponent: of Zipf's law; 0 makes all items equally frequent. one_hot: whether the
             value of item i is the i-th coordinate (then e = K). dtype, device: of all.
    Raises   ValueError for no seed, fewer than two items, a width below 1 or a negative exponent.
    """
    if not seeds or items < 2 or width < 1 or exponent < 0:
        raise ValueError(
            "expected seeds, items >= 2, width >= 1, exponent >= 0; "
            f"got {len(seeds)} seeds, {items}, {width} and {exponent}"
        )
    directions = torch.stack([_directions(seed, items, width) for seed in seeds]).to(device, dtype)  # (R, 2, K, d)
    keys, values = directions.unbind(1)
    if one_hot:
        values = torch.eye(items, dtype=dtype, device=device).expand(len(seeds), items, items)
    frequency = torch.arange(1, items + 1, dtype=torch.float64) ** -exponent
    return RareItems(keys, values, (frequency / frequency.sum()).to(device, dtype))


def _directions(seed: int, items: int, width: int) -> Tensor:
    random = torch.randn(2, items, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return random / random.norm(dim=-1, keepdim=True)
