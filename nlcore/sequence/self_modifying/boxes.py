r"""What the boxes generate for a token: its key, its value, its learning rate, its retention, and their own targets.

    k_t = unit(silu(M_k x_t))       v_t = unit(M_v x_t)         eta_t = eta_max sigmoid(M_lr x_t + b)
    alpha_t = sigmoid(M_retain x_t + b)                         vhat_box,t = M_box v_t  (+ v_t for the memory)

All boxes lie one below the other in one matrix S (R, d): they share the key, the learning rate and the retention, so
one product with x generates everything, one product with v all targets, and one write rewrites all.

Symbols   x token, (B, H, n, d); S (B, H, R, d), here always the states at the start of their chunks (Eq. 90).
Source    Behrouz et al. 2025, Nested Learning, Eq. 83-85 and 90; what bends and bounds is a choice (`Rules`).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, pad, silu

from nlcore.sequence.self_modifying.rules import NUMBERS, Boxes, Rules

LEAST_LOG = -20.0  # retention below 2e-9 counts as that, so that sums of logarithms stay exact
TINY = 1e-6  # added to a squared length before its root, so that a zero vector has a gradient


class Generated(NamedTuple):
    """What some tokens generated.

    Args     k, v: (B, H, n, d). lr: (B, H, n). log_retain: (B, H, n), None if nothing fades. q: as k, or None.
    """

    k: Tensor
    v: Tensor
    lr: Tensor
    log_retain: Tensor | None
    q: Tensor | None

    def query(self, given: Tensor | None) -> Tensor:
        """Return the generated queries, or else the given ones."""
        query = given if self.q is None else self.q
        assert query is not None
        return query


def generate(x: Tensor, S: Tensor, boxes: Boxes, rules: Rules, live: Tensor | None = None) -> Generated:
    """Generate key, value, learning rate and retention from the boxes.

    Args     x: (B, H, n, d). S: (B, H, R, d). boxes: the biases. rules: the choices. live: (B, 1, n), 1 for a token, 0
             for padding, which gets lr 0 and retain 1; or None.
    """
    width = x.shape[-1]
    names = rules.boxes[:-1]
    answers = x @ S.mT  # that of the memory, which nobody asks for, costs less than a gradient through a slice of S
    parts = dict(zip(names, answers.split([rules.height(name, width) for name in rules.boxes], -1), strict=False))
    parts.update({name: parts[name].squeeze(-1) for name in NUMBERS if name in parts})
    return settle(parts, boxes.lr_bias, boxes.retain_bias, rules, live)


def settle(
    parts: dict[str, Tensor], lr_bias: Tensor, retain_bias: Tensor, rules: Rules, live: Tensor | None
) -> Generated:
    """Bring what the boxes answered into its range: keys and values of length one, gates between their limits.

    Args     parts: for each box its answer, (B, H, n) or (B, H, n, d). lr_bias, retain_bias: (H,). rules, live: as for
             `generate`.
    """
    bent: dict[str, Tensor] = {
        name: silu(parts[name]) if rules.silu else parts[name] for name in ("k", "q") if name in parts
    }
    bent["v"] = parts["v"]
    short = [name for name in bent if name != "v" or rules.unit_values]
    bent.update(zip(short, unit(torch.stack([bent[name] for name in short])).unbind(), strict=True))
    lr = (parts["lr"] + lr_bias[:, None]).sigmoid()
    lr = lr if rules.lr_max == 1.0 else rules.lr_max * lr
    log_retain = None
    if "retain" in parts:
        log_retain = logsigmoid(parts["retain"] + retain_bias[:, None]).clamp_min(LEAST_LOG)
    elif rules.retain is not None and rules.fades:
        log_retain = torch.full_like(lr, max(math.log(rules.retain), LEAST_LOG))
    if live is not None:
        lr = lr * live
        log_retain = None if log_retain is None else log_retain * live
    return Generated(bent["k"], bent["v"], lr, log_retain, bent.get("q"))


def targets(v: Tensor, S: Tensor, rules: Rules) -> Tensor:
    """Return what each box is to answer for the key: vhat = M_box v, shape (B, H, n, R).

    Args     v: (B, H, n, d). S: (B, H, R, d).
    """
    width = v.shape[-1]
    found = v @ S.mT
    count = sum(name in NUMBERS for name in rules.boxes)
    if not rules.own_value:
        return found if rules.target_bound is None else bounded(found, rules.target_bound, count, width)
    found = found + pad(v, (found.shape[-1] - width, 0))
    return found if rules.target_bound is None else bounded(found, rules.target_bound, count, width)


def bounded(found: Tensor, bound: float, count: int, width: int) -> Tensor:
    """Cut each target that is longer than `bound` to that length.

    Args     found: (B, H, n, R). bound: a length above 0. count: how many rows at the beginning are boxes that answer
             with one number. width: d, the rows of every other box.
    """
    numbers, vectors = found.split([count, found.shape[-1] - count], -1)
    vectors = cut_to(vectors.unflatten(-1, (-1, width)), bound).flatten(-2)
    return torch.cat([numbers.clamp(-bound, bound), vectors], -1)


def cut_to(x: Tensor, bound: float) -> Tensor:
    """Return x (..., d), cut to the length `bound` where it is longer."""
    length = (x.square().sum(-1, keepdim=True) + TINY).sqrt()
    return x * (bound / length).clamp_max(1.0)


def unit(x: Tensor) -> Tensor:
    """Return x with length one; a vector much shorter than 0.001 stays short."""
    return x * (x.square().sum(-1, keepdim=True) + TINY).rsqrt()


def transition_eigenvalue(k: Tensor, v: Tensor, lr: Tensor | float, retain: Tensor | float = 1.0) -> Tensor:
    r"""Return the one eigenvalue of a self-modifying step that is not alpha: alpha - eta k . (k - v).

    With targets made by the memory itself, vhat = M v, a step is M_t = M_{t-1} (alpha I - eta k k^T + eta v k^T). For a
    key of length one and alpha = 1 the eigenvalue is 1 - eta (1 - k . v): the self-generated value makes it negative
    although eta is below 1, as soon as k . v < 1 - 1/eta. For v = k it is 1 (nothing changes), for v = -k 1 - 2 eta.

    Args     k, v: (..., d). lr: eta; retain: alpha; numbers or (...).
    Returns  shape (...).
    Source   derived; the other d - 1 eigenvalues are alpha.
    """
    return retain - lr * (k * (k - v)).sum(-1)
