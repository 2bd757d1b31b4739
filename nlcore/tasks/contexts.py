"""Streams with contexts inside contexts: a slow rule, a rule that changes sometimes, a rule that changes often.

In one world the outputs are read out of fixed features of the input, tanh(F x). Each stream of the world draws its own
read-outs: the slow one stays for the whole stream, the middle one is drawn again every 32 steps, the fast one every 8:

    y_t = S_slow tanh(F_slow x_t) + S_mid(t) tanh(F_mid x_t) + S_fast(t) tanh(F_fast x_t) + noise

Whoever learns on many streams can learn the features; the read-outs can only be learned within the stream, and each
is worth remembering for another time. The boundaries are "aligned" (multiples of 32 and of 8), in a random "phase" (the
same lengths, each stream shifted by its own amounts), or "random" (the same mean lengths, a boundary at any step).

Symbols   W worlds, B streams of each, T steps; 4 inputs, 2 outputs, 18 features: 12 slow, 4 middle, 2 fast.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

INPUTS, OUTPUTS = 4, 2
FEATURES = (12, 4, 2)  # read by the slow, the middle, the fast part
LENGTHS = (32, 8)  # steps of a middle and of a fast context
BOUNDARIES = ("aligned", "phase", "random")
NOISE = 0.3


@dataclass(frozen=True)
class Streams:
    """Inputs x (W, B, T, 4), outputs y (W, B, T, 2), and what is hidden from the learner.

    The parts (W, B, T, 3, 2) are what the slow, middle and fast rule add to y; `begins` (W, B, T, 2) says where a
    middle and a fast context begins; `features` is F (W, 18, 4); `slow` (W, B, 2, 12) the slow read-out; `noise` the
    spread of what nobody can know.
    """

    x: Tensor
    y: Tensor
    parts: Tensor
    begins: Tensor
    features: Tensor
    slow: Tensor
    noise: float

    def slow_part(self, x: Tensor) -> Tensor:
        """Return what the slow rule of each stream answers to other inputs x (W, B, M, 4), shape (W, B, M, 2)."""
        return (x @ self.features[:, None, : FEATURES[0]].mT).tanh() @ self.slow.mT


def streams(
    seeds: Sequence[int],
    boundaries: str = "aligned",
    number: int = 4,
    steps: int = 128,
    draw: int = 0,
    noise: float = NOISE,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Streams:
    """Return `number` streams of each world; the same arguments give the same streams.

    The read-outs are normal with spread 1 / sqrt(features), so each part has a power of about 1.3 in the two outputs.

    Args     seeds: W whole numbers >= 0, one world each. boundaries: "aligned", "phase" or "random". number: B.
             steps: T. draw: another number gives other streams of the same worlds. noise: its spread.
             dtype, device: of all tensors.
    Raises   ValueError for no seed, a negative one, an unknown kind of boundary, or number, steps, draw, noise too low.
    """
    if not seeds or min(seeds) < 0 or draw < 0:
        raise ValueError(f"expected seeds and a draw that are not negative, got {list(seeds)} and {draw}")
    if boundaries not in BOUNDARIES:
        raise ValueError(f"boundaries must be one of {', '.join(BOUNDARIES)}; got {boundaries!r}")
    if min(number, steps) < 1 or noise < 0:
        raise ValueError(f"expected number and steps >= 1 and noise >= 0, got {number}, {steps} and {noise}")
    worlds = [_draws(seed, draw, number, steps) for seed in seeds]
    F, x, slow, mid, fast, news, chance, phase = (torch.stack(part) for part in zip(*worlds, strict=True))
    begins = _begins(boundaries, chance, phase)
    hidden = (x @ F[:, None].mT).tanh()  # (W, B, T, 18)
    features = hidden.split(FEATURES, -1)
    parts = [features[0] @ slow.mT]
    for own, candidates, begin in zip(features[1:], (mid, fast), begins.unbind(-1), strict=True):
        parts.append((_held(candidates, begin) @ own[..., None]).squeeze(-1))
    y = sum(parts) + noise * news
    found = (x, y, torch.stack(parts, -2), F, slow)
    x, y, split, F, slow = (tensor.to(device, dtype) for tensor in found)
    return Streams(x, y, split, begins.to(device), F, slow, noise)


def _draws(seed: int, draw: int, B: int, T: int) -> tuple[Tensor, ...]:
    """Return all random numbers of one world, in float64; a new read-out is drawn for every step, most stay unused."""
    world = torch.Generator().manual_seed(seed)
    random = torch.Generator().manual_seed(1_000_003 * (seed + 1) + draw)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random, dtype=torch.float64)

    return (
        torch.randn(sum(FEATURES), INPUTS, generator=world, dtype=torch.float64),
        normal(B, T, INPUTS),
        normal(B, OUTPUTS, FEATURES[0]) / FEATURES[0] ** 0.5,
        normal(B, T, OUTPUTS, FEATURES[1]) / FEATURES[1] ** 0.5,
        normal(B, T, OUTPUTS, FEATURES[2]) / FEATURES[2] ** 0.5,
        normal(B, T, OUTPUTS),
        torch.rand(B, T, 2, generator=random, dtype=torch.float64),
        torch.rand(B, 1, 2, generator=random, dtype=torch.float64),
    )


def _begins(boundaries: str, chance: Tensor, phase: Tensor) -> Tensor:
    lengths = torch.tensor(LENGTHS)
    step = torch.arange(chance.shape[2])[:, None]
    if boundaries == "random":
        begins = chance * lengths < 1
    else:
        shift = (phase * lengths).long() if boundaries == "phase" else torch.zeros_like(phase).long()
        begins = (step + shift) % lengths == 0
    return begins | (step == 0)


def _held(candidates: Tensor, begins: Tensor) -> Tensor:
    """Return at each step the candidate of the last step at which a context began."""
    step = torch.arange(begins.shape[-1])
    last = torch.where(begins, step, 0).cummax(-1).values[..., None, None]
    return candidates.gather(2, last.expand_as(candidates))


def best_possible(given: Streams) -> Tensor:
    """Return the squared error of the best predictor that knows features, boundaries and noise, (W, B, T).

    It holds a normal belief about all read-outs (recursive least squares) and forgets a part's read-out, and only
    that, where the part's context begins. Errors are summed over the two outputs, the noise is in them.
    """
    W, B, T, _ = given.x.shape
    prior = torch.cat([given.x.new_full((m,), 1 / m) for m in FEATURES])
    part = torch.tensor([index for index, m in enumerate(FEATURES) for _ in range(m)], device=prior.device)
    mean = given.x.new_zeros(W, B, OUTPUTS, len(prior))
    spread = prior.diag().expand(W, B, -1, -1)
    errors = []
    for t in range(T):
        begins = torch.cat([torch.zeros_like(given.begins[:, :, t, :1]), given.begins[:, :, t]], -1)  # slow: never
        keep = (~begins[..., part]).to(prior)
        mean = mean * keep[..., None, :]
        spread = spread * keep[..., None] * keep[..., None, :] + ((1 - keep) * prior).diag_embed()
        phi = (given.features[:, None] @ given.x[:, :, t, :, None]).tanh()  # (W, B, 18, 1)
        gap = given.y[:, :, t, :, None] - mean @ phi
        errors.append(gap.square().sum((-2, -1)))
        gain = spread @ phi / (phi.mT @ spread @ phi + given.noise**2)
        mean, spread = mean + gap @ gain.mT, spread - gain @ (phi.mT @ spread)
    return torch.stack(errors, -1)
