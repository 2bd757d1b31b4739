"""A chain of residual blocks whose weights are fast: they learn on a stream, from a start that was learned before.

    h_0 = E [x; 1],   h_l = h_{l-1} + D_l tanh(U_l h_{l-1}),   answer = O h_3                                   (70)

Block l learns by gradient descent on 1/2 |answer - y|^2, with one step for C_l inputs, on the sum of their gradients
(71); it may decay towards its start at each of its steps, and it may be put back to its start at the end of its
context (72). The answer is given before the weights change. `independent` blocks all read h_0, and their sum is read
out (74). E and O do not move within a stream. Everything is differentiable with respect to the start.

The inner gradients are written by hand: they are outer products, a chunk adds up its factors and no gradient is stored.
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
             or "parameter". independent: whether the blocks stand side by side.
    Raises   ValueError for another word, periods and resets that do not fit, or a negative reset.
    """

    periods: tuple[float, ...] = (1, 1, 1)
    resets: tuple[int, ...] = (0, 0, 0)
    rates: str = "block"
    decay: str = "none"
    independent: bool = False

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


@dataclass
class Reading:
    """What came of it: errors (T, 2, N) before each write, the weights at the end, and the writes of each block."""

    errors: Tensor
    up: Matrices
    down: Matrices
    written: list[int]


def times(M: Tensor, v: Tensor) -> Tensor:
    """Return the products M v of all copies; M (rows, columns, N), v (columns, N)."""
    return (M * v).sum(1)


def transposed_times(M: Tensor, v: Tensor) -> Tensor:
    """Return the products M^T v of all copies; M (rows, columns, N), v (rows, N)."""
    return (M * v[:, None]).sum(0)


def forward(chain: Chain, h: Tensor, up: Matrices, down: Matrices) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
    """Return the end of the chain (d, N), and what each block read and its hidden units, for h (d, N)."""
    seen, first = [], h
    for U, D in zip(up, down, strict=True):
        source = first if chain.independent else h
        hidden = times(U, source).tanh()
        seen.append((source, hidden))
        h = h + times(D, hidden)
    return h, seen


def factors_of_gradients(
    chain: Chain, g: Tensor, seen: list[tuple[Tensor, Tensor]], up: Matrices, down: Matrices
) -> list[tuple[Tensor, Tensor]]:
    """Return (a, b) of each block: its gradients are a h^T for U (h what it read) and b z^T for D (z hidden units).

    Args     g: gradient at the end of the chain, (d, N). seen: from `forward`. up, down: L matrices each.
    """
    found = []
    for level in range(len(up) - 1, -1, -1):
        hidden = seen[level][1]
        back = transposed_times(down[level], g)
        a = torch.addcmul(back, back * hidden, hidden, value=-1)  # tanh' = 1 - tanh^2
        found.append((a, g))
        if level and not chain.independent:
            g = g + transposed_times(up[level], a)
    return found[::-1]


def read(chain: Chain, start: Start, x: Tensor, y: Tensor) -> Reading:
    """Let the chain read streams and learn from them.

    Args     chain: how it learns. start: one for every copy, from `Start.spread`. x: (T, inputs, N). y: (T, 2, N).
    """
    up, down = list(start.up), list(start.down)
    waiting: list[list[tuple[Tensor, ...]]] = [[] for _ in up]
    written, errors = [0] * len(up), []
    entering = (start.into[:, :-1] * x[:, None]).sum(2) + start.into[:, -1]  # (T, d, N)
    for step, (h, target) in enumerate(zip(entering.unbind(), y.unbind(), strict=True), start=1):
        end, seen = forward(chain, h, up, down)
        errors.append(times(start.out, end) - target)
        factors = factors_of_gradients(chain, transposed_times(start.out, errors[-1]), seen, up, down)
        for level, (period, reset) in enumerate(zip(chain.periods, chain.resets, strict=True)):
            if math.isinf(period):
                continue
            waiting[level].append((*factors[level], *seen[level]))
            if step % period:
                continue
            if reset and step % reset == 0:
                up[level], down[level] = start.up[level], start.down[level]
            else:
                up[level], down[level] = _write(start, level, up[level], down[level], waiting[level])
            waiting[level] = []
            written[level] += 1
    return Reading(torch.stack(errors), up, down, written)


def _write(start: Start, level: int, U: Tensor, D: Tensor, chunk: list[tuple[Tensor, ...]]) -> tuple[Tensor, Tensor]:
    """Return U and D after one step on the summed gradients of a chunk, and after decay."""
    a, b, h, z = (torch.stack(part) if len(chunk) > 1 else part[0] for part in zip(*chunk, strict=True))
    if start.decays:
        fade_up, fade_down = start.decays[level]
        U, D = torch.lerp(U, start.up[level], fade_up), torch.lerp(D, start.down[level], fade_down)
    rate_up, rate_down = start.rates[level]
    return _step(U, rate_up, a, h), _step(D, rate_down, b, z)


def _step(M: Tensor, rate: Tensor, a: Tensor, h: Tensor) -> Tensor:
    """Return M - rate * sum of a h^T over the chunk; a and h are (d, N), or (C, d, N)."""
    if a.ndim == 3:
        return torch.addcmul(M, rate, torch.einsum("cin,cjn->ijn", a, h), value=-1)
    return torch.addcmul(M, rate * a[:, None], h[None], value=-1)
