"""Sweeps: many copies of one small problem at once, a copy for each setting of an optimizer and each seed.

A fair comparison tunes every optimizer alike: a fine grid of settings, a choice made on tuning seeds, the result
reported on other seeds. The copies do not feel each other, so one run of the optimizer itself serves all of them.

Symbols   S settings, R seeds; W has the shape (S, R, ...).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nlcore.files import write_atomic

HUGE = 1e12  # gradients of copies that diverge are cut here, so that they disturb no other copy


def sweep(
    make: Callable[[list[dict[str, Any]]], torch.optim.Optimizer],
    settings: Sequence[Mapping[str, Any]],
    start: Tensor,
    gradient: Callable[[Tensor, int], Tensor],
    steps: int,
    watch: Callable[[Tensor, int], Any] | None = None,
) -> list[Any]:
    """Train S x R copies and return what `watch` saw.

    Args     make: parameter groups -> an optimizer, for example `lambda groups: Momentum(groups, beta=0.9)`. An
             optimizer of matrices needs stacked=True. settings: S dictionaries, one for each group: {"lr": 0.1}, ...
             start: (R, ...), where the copies of each setting start. gradient: (W, t) -> the gradient at W, shape of W;
             t counts from 0. steps: how many. watch: (W, t) -> anything, called after step t = 1, 2, ...; without it
             the weights at the end are returned alone.
    Returns  a list of what `watch` returned, without the None among them.
    Raises   ValueError for no setting or no step.
    """
    if not settings or steps < 1:
        raise ValueError(f"expected at least one setting and one step, got {len(settings)} and {steps}")
    copies = [nn.Parameter(start.clone()) for _ in settings]
    optimizer = make([{"params": [copy], **setting} for copy, setting in zip(copies, settings, strict=True)])
    seen = []
    W = start.expand(len(copies), *start.shape)
    for t in range(steps):
        g = gradient(W, t).nan_to_num_(0.0, HUGE, -HUGE).clamp_(-HUGE, HUGE)
        for copy, part in zip(copies, g, strict=True):
            copy.grad = part
        optimizer.step()
        W = torch.stack([copy.detach() for copy in copies])
        if watch is not None:
            seen.append(watch(W, t + 1))
    if watch is None:
        return [W]
    return [one for one in seen if one is not None]


def grid(low: float, high: float, factor: float = 10**0.2) -> list[float]:
    """Return rates from `low` to `high`, each `factor` times the one before (1.58 if nothing is said).

    Raises   ValueError if they do not grow.
    """
    if not (0 < low < high and factor > 1):
        raise ValueError(f"expected 0 < low < high and a factor above 1, got {low}, {high} and {factor}")
    rates = [low]
    while rates[-1] * factor < high * 1.001:
        rates.append(rates[-1] * factor)
    return rates


def best_setting(scores: Tensor, slack: float = 0.0) -> int:
    """Return which setting is best on tuning seeds; lower scores are better, a NaN is the worst.

    Args     scores: (S, R), for tuning seeds only. slack: settings whose mean is at most this much above the best count
             as equal; the middle one of them is returned.
    Raises   ValueError if `scores` has not two axes, or every setting failed.
    """
    if scores.ndim != 2:
        raise ValueError(f"expected scores of shape (settings, seeds), got {tuple(scores.shape)}")
    means = scores.double().nan_to_num(torch.inf).mean(1)
    if not torch.isfinite(means).any():
        raise ValueError("every setting failed on a tuning seed: try smaller learning rates")
    equal = (means <= means.min() + slack).nonzero().flatten().tolist()
    return equal[len(equal) // 2]


def save_sweep(name: str, record: Mapping[str, Any], folder: Path | None = None) -> Path:
    """Store the result of a sweep as JSON, a list of numbers on one line, so that a difference can be read.

    Args     name: lower-case words joined by underscores. record: what was measured, with the "command" that did it and
             the version of "torch". folder: where to; None is the folder that `load_sweep` reads. An old file stays
             until the new one is whole.
    Returns  the file.
    Raises   ValueError if the command or the version is missing, or a number is NaN or infinite.
    """
    if missing := {"command", "torch"} - set(record):
        raise ValueError(f"a stored sweep says how it was made: {', '.join(sorted(missing))} missing")
    text = json.dumps(record, indent=1, allow_nan=False)
    text = re.sub(r"\[[^\[\]{}]*\]", lambda found: re.sub(r"\s+", " ", found[0]), text)
    place = Path(str(files("nlcore.data") / "sweeps")) if folder is None else folder
    return write_atomic(place / f"{name}.json", text + "\n")


def load_sweep(name: str) -> dict[str, Any]:
    """Return the stored result of a sweep that is too long for a notebook, with its "command" and its seeds.

    Raises   ValueError that names the stored sweeps, if this is none of them.
    """
    if name not in (stored := stored_sweeps()):
        raise ValueError(f"no stored sweep {name!r}; there are: {', '.join(stored)}")
    file = files("nlcore.data") / "sweeps" / f"{name}.json"
    result: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return result


def stored_sweeps() -> list[str]:
    """Return the names of all stored sweeps."""
    entries = (files("nlcore.data") / "sweeps").iterdir()
    return sorted(entry.name.removesuffix(".json") for entry in entries if entry.name.endswith(".json"))
