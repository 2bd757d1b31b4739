r"""How far back a fading memory remembers: the weight of each past item, and exact horizons.

A memory that is multiplied by beta before every write, m <- beta m + g, holds its newest item with the weight 1 and an
item of age k with beta^k. As shares of the whole (for a memory that has been written long enough) these weights are

    weight of age k         (1 - beta) beta^k                       k = 0 is the newest item
    share of the last n     S_n = 1 - beta^n                        ages 0 to n - 1
    horizon of a share      the smallest n with S_n >= share

Source   Behrouz et al. 2025, Nested Learning, section 4.3. The paper counts with an inclusive index, i = 0 to t, so its
         sum up to t is S_(t+1) here: its "6" and "43" for beta = 0.9 are 7 and 44 gradients.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from nlcore.optimizers.checks import check_beta

ROUNDING = 1e-9  # of a step: a share that is reached exactly must not cost one step more because of the last bit


def past_weights(beta: float, n: int) -> Tensor:
    r"""Return the share of each of the last n items in a fading memory: (1 - beta) beta^k for k = 0 to n - 1.

    Args     beta: part of the memory kept at each write, in [0, 1). n: how many items, >= 0.
    Returns  shape (n,), float64, the newest item first.
    Raises   ValueError for a beta outside [0, 1) or a negative n.
    """
    beta, n = check_beta("beta", beta), _check_count(n)
    return (1.0 - beta) * torch.full((n,), beta, dtype=torch.float64) ** torch.arange(n, dtype=torch.float64)


def share_of_last(beta: float, n: int) -> float:
    r"""Return the share that the last n items have together: S_n = 1 - beta^n.

    Args     beta: part of the memory kept at each write, in [0, 1). n: how many items, >= 0.
    Raises   ValueError for a beta outside [0, 1) or a negative n.
    """
    return 1.0 - check_beta("beta", beta) ** _check_count(n)


def horizon(beta: float, share: float) -> int:
    r"""Return how many of the newest items hold at least `share` of the memory: ceil(ln(1 - share) / ln(beta)).

    Args     beta: part of the memory kept at each write, in [0, 1). share: in (0, 1).
    Returns  the smallest n with 1 - beta^n >= share, at least 1.
    Raises   ValueError for a beta outside [0, 1) or a share outside (0, 1).
    """
    beta = check_beta("beta", beta)
    if not 0.0 < share < 1.0:
        raise ValueError(f"share must lie in (0, 1), for example 0.99; got {share}")
    if beta == 0.0:
        return 1
    return max(1, math.ceil(math.log1p(-share) / math.log(beta) - ROUNDING))


def _check_count(n: int) -> int:
    if isinstance(n, bool) or not isinstance(n, int):
        raise TypeError(f"n must be a whole number of items, got {type(n).__name__}: {n!r}")
    if n < 0:
        raise ValueError(f"n must be a number of items >= 0, got {n}")
    return n
