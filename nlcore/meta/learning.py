"""Meta-learning: Adam learns the start of a chain through all its inner steps, in many worlds side by side (72, 73).

    start = argmin  E_streams  mean_t |answer_t(start, what was read before t) - y_t|^2

A world is a seed; each has its own start, first learning rate and outer rate, and none feels the others, so one
tensor program trains them all. How well a start does is measured on fresh streams of the same world.

Source    Behrouz et al. 2025, Nested Learning, Eqs. (28), (72), (73); Finn et al. 2017 for the idea.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from nlcore.meta.adjoint import loss_and_gradients
from nlcore.meta.chain import Chain, Start, new_start
from nlcore.meta.reading import Reading, forward, read, times
from nlcore.tasks.contexts import Streams, streams

TRAINING, TESTING, LONG, PROBES = 0, 1_000_000, 1_000_001, 1_000_002  # numbers of draws of streams


def copies_last(tensor: Tensor) -> Tensor:
    """Return (W, B, T, d) as (T, d, W B), as `read` takes it."""
    return tensor.flatten(0, 1).permute(1, 2, 0).contiguous()


def on_streams(chain: Chain, start: Start, given: Streams) -> Reading:
    """Let each world's start read the streams of its world."""
    return read(chain, start.spread(given.x.shape[1]), copies_last(given.x), copies_last(given.y))


def meta_learn(
    chain: Chain,
    seeds: Sequence[int],
    rates: Sequence[float],
    outer_rates: Sequence[float],
    iterations: int,
    boundaries: str = "aligned",
    noise: float = 0.3,
    number: int = 4,
    steps: int = 128,
    *,
    device: torch.device | str = "cpu",
) -> Start:
    """Return the start of each world after learning on fresh streams in every iteration.

    Adam with a cosine from the outer rate to a twentieth of it; the gradient of a world is cut to length one.

    Args     chain: how a memory learns within a stream. seeds: W worlds. rates: W first inner learning rates.
             outer_rates: W rates of Adam. iterations: outer steps. boundaries, noise, number, steps: of the streams,
             see `nlcore.tasks.contexts.streams`. device: of everything.
    Raises   ValueError if seeds, rates and outer rates differ in number.
    """
    if not len(seeds) == len(rates) == len(outer_rates):
        raise ValueError(f"expected as many rates as seeds, got {len(seeds)}, {len(rates)} and {len(outer_rates)}")
    start = new_start(chain, seeds, rates, device=device)
    outer = torch.tensor(outer_rates, dtype=start.into.dtype, device=device)
    moments = [(torch.zeros_like(p), torch.zeros_like(p)) for p in start.parameters()]
    for iteration in range(iterations):
        given = streams(seeds, boundaries, number, steps, TRAINING + iteration, noise, device=device)
        gradients = loss_and_gradients(chain, start, copies_last(given.x), copies_last(given.y), number)[1]
        falling = 0.525 + 0.475 * math.cos(math.pi * iteration / iterations)
        _adam(start.parameters(), gradients, moments, outer * falling, iteration + 1)
    return start


@torch.no_grad()
def _adam(
    parameters: Sequence[Tensor],
    gradients: Sequence[Tensor],
    moments: Sequence[tuple[Tensor, Tensor]],
    rate: Tensor,
    count: int,
) -> None:
    """Move all worlds by one step of Adam (0.9, 0.99); a world whose gradient is not finite waits."""
    length = torch.stack([g.square().flatten(0, -2).sum(0) for g in gradients]).sum(0).sqrt()  # (W,)
    cut = torch.where(length.isfinite(), 1 / length.clamp(min=1.0), 0.0)
    for parameter, gradient, (m, v) in zip(parameters, gradients, moments, strict=True):
        g = gradient.nan_to_num(0.0, 0.0, 0.0) * cut
        m.lerp_(g, 0.1)
        v.lerp_(g * g, 0.01)
        parameter -= rate * (m / (1 - 0.9**count)) / ((v / (1 - 0.99**count)).sqrt() + 1e-8)


@torch.no_grad()
def examine(
    chain: Chain,
    start: Start,
    seeds: Sequence[int],
    boundaries: str = "aligned",
    noise: float = 0.3,
    number: int = 64,
    steps: int = 128,
) -> dict[str, Any]:
    """Measure each world on streams that nobody learned from; squared errors, summed over the outputs.

    Args     as in `meta_learn`. number: of test streams a world.
    Returns  "online": mean error of all steps, "last": of the last 32, "retention": error on the slow part alone at the
             end of the stream, after its last write and reset, "longer": online error of streams twice as long; a list
             of W numbers each. "written": blocks written for each input, counted. An infinite error has diverged.
    """
    device = start.into.device
    given = streams(seeds, boundaries, number, steps, TESTING, noise, device=device)
    longer = streams(seeds, boundaries, number, 2 * steps, LONG, noise, device=device)
    probes = streams(seeds, boundaries, number, 64, PROBES, noise, device=device).x
    reading = on_streams(chain, start, given)
    answers = answer(chain, start.spread(number), reading, copies_last(probes))
    gap = answers - copies_last(given.slow_part(probes))
    found = {
        "online": reading.errors,
        "last": reading.errors[-32:],
        "retention": gap,
        "longer": on_streams(chain, start, longer).errors,
    }
    result: dict[str, Any] = {name: _of_worlds(errors, len(seeds)) for name, errors in found.items()}
    return {**result, "written": sum(reading.written) / steps}


def answer(chain: Chain, start: Start, reading: Reading, x: Tensor) -> Tensor:
    """Return the answers (M, 2, N) that the weights at the end of a reading give to inputs x (M, 4, N)."""
    entering = (start.into[:, :-1] * x[:, None]).sum(2) + start.into[:, -1]
    return torch.stack([times(start.out, forward(chain, h, reading.up, reading.down)[0]) for h in entering])


def _of_worlds(errors: Tensor, worlds: int) -> list[float]:
    """Return the mean squared error of each world, from (T, 2, N)."""
    means = errors.double().square().sum(1).mean(0).reshape(worlds, -1).mean(1)
    return means.nan_to_num(math.inf, math.inf).tolist()


def search(
    chain: Chain,
    seeds: Sequence[int],
    rates: Sequence[float],
    outer_rates: Sequence[float],
    iterations: int,
    boundaries: str = "aligned",
    noise: float = 0.3,
) -> dict[str, Any]:
    """Try every pair of a first inner rate and an outer rate in tuning worlds, all at once, and return the best pair.

    Args     chain, iterations, boundaries, noise: as in `meta_learn`. seeds: the tuning worlds. rates, outer_rates:
             the values to try.
    Returns  {"rate", "outer_rate", "errors": the mean online error of each pair, rows are rates}.
    Raises   ValueError if every pair diverged.
    """
    pairs = [(rate, outer) for rate in rates for outer in outer_rates]
    worlds = list(seeds) * len(pairs)
    inner, outer = ([pair[side] for pair in pairs for _ in seeds] for side in (0, 1))
    start = meta_learn(chain, worlds, inner, outer, iterations, boundaries, noise)
    online = examine(chain, start, worlds, boundaries, noise, number=32)["online"]
    errors = torch.tensor(online).reshape(len(pairs), -1).mean(1)
    if not errors.isfinite().any():
        raise ValueError(f"every pair of rates diverged: try rates below {min(rates)}")
    best = int(errors.argmin())
    table = [[round(error, 4) for error in row] for row in errors.reshape(len(rates), -1).tolist()]
    return {"rate": pairs[best][0], "outer_rate": pairs[best][1], "errors": table}
