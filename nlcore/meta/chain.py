"""A chain of residual blocks whose weights are fast: they learn on a stream, from a start that was learned before.

    h_0 = E [x; 1],   h_l = h_{l-1} + D_l tanh(U_l h_{l-1}),   answer = O h_3                                   (70)

Block l learns by gradient descent on 1/2 |answer - y|^2, with one step for C_l inputs, on the sum of their gradients
(71); an error longer than `cut` counts as that long (Huber's loss), so that one surprise cannot throw a memory off. It
may decay towards its start at each of its steps, and it may be put back to its start at the end of its context (72).
The answer is given before the weights change. `independent` blocks all read h_0, and their sum is read out (74). E and
O do not move within a stream. Everything is differentiable with respect to the start.

All copies stand in the LAST axis, where elementwise arithmetic on tiny matrices is fast.

Symbols   W worlds, B streams of each, N = W B copies, T steps, d width of the chain, L = 3 blocks.
Source    Behrouz et al. 2025, Nested Learning, Eqs. (70) to (74).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

WIDTH = 16
Matrices = list[Tensor]


@dataclass(frozen=True)
class Chain:
    """How the blocks of a chain learn within a stream, in the order in which the input meets them.

    Args     periods: C_l, steps between two writes; math.inf for a block that is not written. resets: steps after
             which a block is put back to its start, 0 for never; a multiple of the period. rates: "one" learning rate,
             one for each "block", or one for each "parameter". decay: towards the start, "none" or for each "block"
             or "parameter". independent: whether the blocks stand side by side. cut: the longest error whose gradient
             is not cut; math.inf for the plain squared loss.
    Raises   ValueError for another word, periods and resets that do not fit, or a negative reset.
    """

    periods: tuple[float, ...] = (1, 1, 1)
    resets: tuple[int, ...] = (0, 0, 0)
    rates: str = "block"
    decay: str = "none"
    independent: bool = False
    cut: float = 4.0

    def __post_init__(self) -> None:
        if len(self.periods) != len(self.resets) or not self.periods or min(self.periods) < 1 or min(self.resets) < 0:
            raise ValueError(f"expected a period >= 1 and a reset >= 0 a block, got {self.periods} and {self.resets}")
        if any(reset and reset % period for reset, period in zip(self.resets, self.periods, strict=True)):
            raise ValueError(f"a reset must be a multiple of its period, got {self.resets} for {self.periods}")
        if self.rates not in ("one", "block", "parameter") or self.decay not in ("none", "block", "parameter"):
            raise ValueError(
                "expected rates one, block or parameter, and decay none, block or parameter; "
                f"got {self.rates!r} and {self.decay!r}"
            )

    @property
    def cost(self) -> float:
        """Blocks written for each input, the sum of 1 / C_l; a reset falls on a write and takes its place."""
        return sum(1 / period for period in self.periods)


@dataclass
class Start:
    """What is learned between streams; every tensor ends with an axis of worlds or, after `spread`, of copies.

    `into` E (d, 5, W), `out` O (2, d, W); `up` U and `down` D, L matrices (d, d, W) each; `rates` and `decays` L pairs
    (for up, for down) of shape (1, 1, W) or (d, d, W), as logarithms and log-odds; `decays` may be empty.
    """

    into: Tensor
    out: Tensor
    up: Matrices
    down: Matrices
    rates: list[tuple[Tensor, Tensor]]
    decays: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    def parameters(self) -> Matrices:
        """Return every tensor once."""
        pairs = [tensor for pair in (*self.rates, *self.decays) for tensor in pair]
        every = [self.into, self.out, *self.up, *self.down, *pairs]
        return list({id(tensor): tensor for tensor in every}.values())

    def spread(self, number: int) -> Start:
        """Return the start of every stream, `number` a world; rates and decays become positive factors."""

        def copies(tensor: Tensor) -> Tensor:
            return tensor.repeat_interleave(number, -1)

        return Start(
            copies(self.into),
            copies(self.out),
            [copies(one) for one in self.up],
            [copies(one) for one in self.down],
            [(copies(up.exp()), copies(down.exp())) for up, down in self.rates],
            [(copies(up.sigmoid()), copies(down.sigmoid())) for up, down in self.decays],
        )


def new_start(
    chain: Chain,
    seeds: Sequence[int],
    rates: Sequence[float],
    inputs: int = 4,
    outputs: int = 2,
    decay: float = 0.02,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Start:
    """Return the start of each world before any learning; chains that differ in rates and decay alone start alike.

    Args     chain: says which rates and decays there are. seeds: W whole numbers. rates: W first inner learning rates;
             a block with period C begins with rate / sqrt(C). inputs, outputs: of the stream. decay: the first one,
             at each write. dtype, device: of all tensors.
    Raises   ValueError if there is not one positive rate a seed.
    """
    if len(rates) != len(seeds) or not seeds or min(rates) <= 0:
        raise ValueError(f"expected one positive rate a seed, got {list(rates)} for {list(seeds)}")
    L, d = len(chain.periods), WIDTH
    shapes = [(d, inputs + 1), (outputs, d), *[(d, d)] * (2 * L)]
    scales = [(inputs + 1) ** -0.5, d**-0.5, *[d**-0.5] * L, *[0.5 * d**-0.5] * L]
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    made = [
        torch.stack([scale * torch.randn(shape, generator=one, dtype=torch.float64) for one in generators], -1)
        for shape, scale in zip(shapes, scales, strict=True)
    ]
    into, out, *matrices = (tensor.to(device, dtype).requires_grad_() for tensor in made)
    logarithms = torch.tensor(rates, dtype=torch.float64).log()

    def factors(kind: str, value: Tensor) -> tuple[Tensor, Tensor]:
        size = d if kind == "parameter" else 1
        up, down = (value.to(device, dtype).expand(size, size, -1).clone().requires_grad_() for _ in range(2))
        return (up, down) if kind == "parameter" else (up, up)

    each = [factors(chain.rates, logarithms - math.log(min(period, 1e6)) / 2) for period in chain.periods]
    odds = torch.full((len(seeds),), math.log(decay / (1 - decay)), dtype=torch.float64)
    decays = [factors(chain.decay, odds) for _ in chain.periods] if chain.decay != "none" else []
    return Start(into, out, matrices[:L], matrices[L:], each[:1] * L if chain.rates == "one" else each, decays)
