r"""Newton-Schulz: make all singular values of a matrix (nearly) equal to one, with matrix products only.

With M = U S V^T, one step applies an odd polynomial to every singular value and leaves U and V alone:

    X <- a X + b (X X^T) X + c (X X^T)^2 X                    s <- a s + b s^3 + c s^5

    cubic      1.5, -0.5, 0                   converges to 1 for every 0 < s < sqrt(3); slow for small s
    quintic    3.4445, -4.7750, 2.0315        Muon's: lifts small s fast, then keeps them between about 0.7 and 1.2
    minimax    another quintic at each step   the best for the interval where the values are: see `minimax`; on most
                                              matrices three such steps come as near to U V^T as five of Muon's

The cubic step is gradient descent on an inner objective: with O = g it is one step of size 1/4 on
1/2 |O - g|^2 + 1/2 |O^T O - I|^2 (the objective behind the printed Eq. 44).

Source   Behrouz et al. 2025, Eq. 42-44; Jordan et al. 2024, Muon (the quintic numbers).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nlcore.optimizers.checks import check_count, check_not_negative
from nlcore.optimizers.minimax import Coefficients, schedule

POLYNOMIALS: dict[str, Coefficients] = {"quintic": (3.4445, -4.7750, 2.0315), "cubic": (1.5, -0.5, 0.0)}


def coefficients(method: str | Sequence[float], steps: int) -> Sequence[Coefficients]:
    """Return (a, b, c) for each step of "quintic", "cubic" or "minimax", or of three numbers given.

    Raises   ValueError for another name, another number of numbers, or steps below 1; TypeError for steps that are no
             whole number.
    """
    check_count("steps", steps)
    if isinstance(method, str) and method in POLYNOMIALS:
        return [POLYNOMIALS[method]] * steps
    if method == "minimax":
        return schedule(steps)
    if isinstance(method, str) or not isinstance(method, Sequence) or len(method) != 3:
        raise ValueError(f"method must be 'quintic', 'cubic', 'minimax' or three numbers (a, b, c), got {method!r}")
    a, b, c = map(float, method)
    return [(a, b, c)] * steps


def newton_schulz(
    M: Tensor,
    steps: int = 5,
    method: str | Sequence[float] = "quintic",
    dtype: torch.dtype | None = None,
    eps: float = 1e-7,
) -> Tensor:
    """Return a matrix with the singular vectors of M and singular values near one.

    Args     M: (..., m, n), any number of matrices. steps: how often the polynomial is applied, >= 1.
             method: "quintic", "cubic", "minimax" or (a, b, c). dtype: of the computation; None is float32, or float64
             for float64 (torch.optim.Muon computes in bfloat16). eps: lower bound of the norm by which M is divided.
    Returns  shape of M, in `dtype`, without a gradient. A zero matrix stays zero.
    Raises   ValueError for less than two axes, or bad steps, method or eps.
    Source   Eq. 42-44.
    """
    if M.ndim < 2:
        raise ValueError(f"newton_schulz expects matrices (..., m, n), got shape {tuple(M.shape)}")
    polynomials = coefficients(method, steps)
    if dtype is None:
        dtype = torch.promote_types(M.dtype, torch.float32)
    X = M.detach().to(dtype)
    X = X / X.norm(dim=(-2, -1), keepdim=True).clamp(min=check_not_negative("eps", eps))  # every singular value <= 1
    return _iterate(X if M.ndim == 2 else X.reshape(-1, *M.shape[-2:]), polynomials).reshape(M.shape)


def _iterate(X: Tensor, polynomials: Sequence[Coefficients]) -> Tensor:
    """Apply the polynomials one after another to X, (m, n) or (stack, m, n). Four buffers are used again and again.

    For a tall X the smaller products are X^T X and, on the right of X, the polynomial in it.
    """
    tall = X.shape[-2] > X.shape[-1]
    multiply_add = torch.addmm if X.ndim == 2 else torch.baddbmm  # beta add + alpha A B, in one call
    gram = X.new_empty(*X.shape[:-2], *[min(X.shape[-2:])] * 2)
    polynomial, after = torch.empty_like(gram), torch.empty_like(X)
    for a, b, c in polynomials:
        torch.matmul(*((X.mT, X) if tall else (X, X.mT)), out=gram)
        inner, scale = gram, b
        if c:
            inner, scale = multiply_add(gram, gram, gram, beta=b, alpha=c, out=polynomial), 1.0
        multiply_add(X, *((X, inner) if tall else (inner, X)), beta=a, alpha=scale, out=after)
        X, after = after, X
    return X
