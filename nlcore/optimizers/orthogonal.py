r"""Newton-Schulz: make all singular values of a matrix (nearly) equal to one, with matrix products only.

With M = U S V^T, one step applies an odd polynomial to every singular value and leaves U and V alone:

    X <- a X + b (X X^T) X + c (X X^T)^2 X                    s <- a s + b s^3 + c s^5

    cubic      1.5, -0.5, 0                   converges to 1 for every 0 < s < sqrt(3); slow for small s
    quintic    3.4445, -4.7750, 2.0315        Muon's: lifts small s fast, then keeps them between about 0.7 and 1.2

The cubic step is gradient descent on an inner objective: with O = g it is one step of size 1/4 on
1/2 |O - g|^2 + 1/2 |O^T O - I|^2 (the objective behind the printed Eq. 44).

Source   Behrouz et al. 2025, Eq. 42-44; Jordan et al. 2024, Muon (the quintic numbers).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nlcore.optimizers.checks import check_count, check_not_negative

Coefficients = tuple[float, float, float]
POLYNOMIALS: dict[str, Coefficients] = {"quintic": (3.4445, -4.7750, 2.0315), "cubic": (1.5, -0.5, 0.0)}


def coefficients(method: str | Sequence[float]) -> Coefficients:
    """Return (a, b, c) of "quintic", of "cubic", or of three numbers given.

    Raises   ValueError for another name or another number of numbers.
    """
    if isinstance(method, str) and method in POLYNOMIALS:
        return POLYNOMIALS[method]
    if isinstance(method, str) or not isinstance(method, Sequence) or len(method) != 3:
        raise ValueError(f"method must be 'quintic', 'cubic' or three coefficients (a, b, c), got {method!r}")
    a, b, c = map(float, method)
    return a, b, c


def newton_schulz(
    M: Tensor,
    steps: int = 5,
    method: str | Sequence[float] = "quintic",
    dtype: torch.dtype | None = None,
    eps: float = 1e-7,
) -> Tensor:
    """Return a matrix with the singular vectors of M and singular values near one.

    Args     M: (..., m, n), any number of matrices. steps: how often the polynomial is applied, >= 1.
             method: "quintic", "cubic" or (a, b, c). dtype: of the computation; None is float32, or float64 for float64
             (torch.optim.Muon computes in bfloat16). eps: lower bound of the norm by which M is divided first.
    Returns  shape of M, in `dtype`, without a gradient. A zero matrix stays zero.
    Raises   ValueError for less than two axes, or bad steps, method or eps.
    Source   Eq. 42-44.
    """
    if M.ndim < 2:
        raise ValueError(f"newton_schulz expects matrices (..., m, n), got shape {tuple(M.shape)}")
    check_count("steps", steps)
    a, b, c = coefficients(method)
    if dtype is None:
        dtype = torch.promote_types(M.dtype, torch.float32)
    tall = M.shape[-2] > M.shape[-1]
    X = (M.mT if tall else M).detach().to(dtype)
    X = X / X.norm(dim=(-2, -1), keepdim=True).clamp(min=check_not_negative("eps", eps))  # every singular value <= 1
    shape = X.shape
    X = _iterate(X.contiguous() if M.ndim == 2 else X.reshape(-1, *shape[-2:]), steps, a, b, c).reshape(shape)
    return X.mT if tall else X


def _iterate(X: Tensor, steps: int, a: float, b: float, c: float) -> Tensor:
    """Apply the polynomial `steps` times to X, (m, n) or (stack, m, n). Four buffers are used again and again."""
    multiply_add = torch.addmm if X.ndim == 2 else torch.baddbmm  # beta add + alpha A B, in one call
    gram = X.new_empty(*X.shape[:-1], X.shape[-2])
    polynomial, after = torch.empty_like(gram), torch.empty_like(X)
    for _ in range(steps):
        torch.matmul(X, X.mT, out=gram)
        if c:
            multiply_add(gram, gram, gram, beta=b, alpha=c, out=polynomial)
            multiply_add(X, polynomial, X, beta=a, out=after)
        else:
            multiply_add(X, gram, X, beta=a, alpha=b, out=after)
        X, after = after, X
    return X
