"""Several levels share one error: each learns the part of a signal that fits its own speed.

    prediction at step t         sum over levels of s_l
    error                        e_t = y_t - prediction
    every C_l steps              s_l <- (1 - d_l)^C_l s_l + eta_l * (sum of the errors of the last C_l steps)

This is Eq. 71 for the smallest possible levels, one number each, with a leak d_l. It is the plain loop; there is no
faster form.

Symbols   y signal; s_l state of level l; C_l = periods[l] steps; eta_l = lrs[l]; d_l = decays[l], the part of the
          state lost at each step.
Source    Behrouz et al. 2025, Nested Learning, section 7.1, Eq. 71; the leak is ours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

PARTS = {"slow": (1600.0, 1.0), "middle": (160.0, 0.7), "fast": (16.0, 0.5)}  # name: steps a wave, height


def slow_middle_fast(
    steps: int = 2000, noise: float = 0.15, offset: float = 1.0, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Return a signal and the three waves it is made of, on top of an offset that never changes.

    Args     steps: length. noise: standard deviation of the noise at each step. offset: the part that never changes.
             seed: of the noise.
    Returns  signal, shape (steps,); parts, shape (steps, 3): slow, middle, fast.
    Raises   ValueError if steps < 1 or noise < 0.
    """
    if steps < 1 or noise < 0:
        raise ValueError(f"expected steps >= 1 and noise >= 0, got {steps} and {noise}")
    time = np.arange(steps)
    waves = [height * np.sin(2 * np.pi * time / period) for period, height in PARTS.values()]
    parts = np.stack(waves, axis=1)
    return offset + parts.sum(1) + noise * np.random.RandomState(seed).randn(steps), parts


def wandering(
    steps: int = 6000, times: Sequence[float] = (3000.0, 100.0, 4.0), noise: float = 0.3, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Return a signal and the parts it is made of: each wanders at random and forgets where it was at its own speed.

        part_t = k part_{t-1} + sqrt(1 - k^2) xi_t,    k = exp(-1 / time),    xi_t standard normal

    Every part has mean 0 and variance 1; after `time` steps its correlation with itself has fallen to 1/e. Unlike waves
    such parts cannot be foreseen, so each seed is another signal.

    Args     steps: length T >= 1. times: one number of steps > 0 a part. noise: standard deviation of the noise at each
             step, >= 0. seed: of all of it.
    Returns  signal, shape (T,); parts, shape (T, parts), in the order of `times`.
    Raises   ValueError for a value outside its range.
    """
    if steps < 1 or noise < 0 or len(times) == 0 or not all(time > 0 for time in times):
        raise ValueError(f"expected steps >= 1, noise >= 0 and times > 0, got {steps}, {noise} and {list(times)}")
    random = np.random.RandomState(seed)
    keep = np.exp(-1.0 / np.asarray(times, dtype=np.float64))
    push = np.sqrt(1 - keep**2)
    parts = random.randn(steps, len(times))
    for t in range(1, steps):
        parts[t] = keep * parts[t - 1] + push * parts[t]
    return parts.sum(1) + noise * random.randn(steps), parts


def learn_together(
    signal: Sequence[float] | np.ndarray,
    periods: Sequence[int],
    lrs: Sequence[float],
    decays: Sequence[float],
) -> np.ndarray:
    """Let several levels learn `signal` from their shared error; return what each holds before each step.

    Args     signal: (T,) numbers. periods: steps between two updates of each level, whole numbers >= 1. lrs: step
             sizes >= 0. decays: part of the state lost at each step, in [0, 1).
    Returns  states, shape (T, levels). Once a state is no longer finite or passes 1e6 the rest is NaN: it diverged.
    Raises   ValueError if the three lists differ in length or hold a value outside its range.
    Source   Eq. 71.
    """
    _check(periods, lrs, decays)
    states = np.full((len(signal), len(periods)), np.nan)
    state, summed = [0.0] * len(periods), [0.0] * len(periods)
    for t, value in enumerate(np.asarray(signal, dtype=np.float64).tolist()):
        states[t] = state
        error = value - sum(state)
        for level, period in enumerate(periods):
            summed[level] += error
            if (t + 1) % period == 0:
                state[level] = (1 - decays[level]) ** period * state[level] + lrs[level] * summed[level]
                summed[level] = 0.0
        if not max(abs(number) for number in state) < 1e6:
            break
    return states


def specialisation(states: np.ndarray, parts: np.ndarray, skip: int = 200) -> np.ndarray:
    """Return how well each level follows each part: correlations in [-1, 1], shape (levels, parts).

    The first `skip` steps are left out. A level that never moves, or that diverged, follows nothing: 0.

    Args     states: (T, levels). parts: (T, parts).
    Raises   ValueError if the lengths differ or nothing is left after `skip` steps.
    """
    if len(states) != len(parts) or len(states) - skip < 2:
        raise ValueError(f"expected equal lengths above skip + 1 = {skip + 1}, got {len(states)} and {len(parts)}")
    held, true = states[skip:] - states[skip:].mean(0), parts[skip:] - parts[skip:].mean(0)
    lengths = np.linalg.norm(held, axis=0)[:, None] * np.linalg.norm(true, axis=0)[None, :]
    moving = np.isfinite(lengths) & (lengths > 1e-9)
    return np.where(moving, held.T @ true / np.where(moving, lengths, 1.0), 0.0)


def _check(periods: Sequence[int], lrs: Sequence[float], decays: Sequence[float]) -> None:
    if not len(periods) == len(lrs) == len(decays) >= 1:
        raise ValueError(f"one period, lr and decay a level, got {len(periods)}, {len(lrs)} and {len(decays)}")
    if any(period < 1 or period != int(period) for period in periods):
        raise ValueError(f"periods are whole numbers of steps >= 1, got {list(periods)}")
    if not all(math.isfinite(lr) and lr >= 0 for lr in lrs):
        raise ValueError(f"lrs are finite numbers >= 0, got {list(lrs)}")
    if not all(0 <= decay < 1 for decay in decays):
        raise ValueError(f"decays lie in [0, 1): the part lost at each step; got {list(decays)}")
