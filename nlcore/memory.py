r"""The one idea: an associative memory, how it is read, and the rules by which it is written.

A memory maps keys to values (Def. 1). Here it is a matrix `M` of shape (..., d_v, d_k): reading is `M @ k`, and every
write adds an outer product `value key^T`. Each rule below is one step of gradient descent on an inner objective; that
is the thesis of the paper in four functions. Optimizers call them with gradients, sequence models with tokens.

    rule      inner objective                             write                                       paper
    hebbian   -<M k, v>                                   alpha M + eta v k^T                         Eq. 5, 33, 64
    delta     1/2 |M k - v|^2                             alpha M + eta (v - M k) k^T                 Eq. 48, 65
    dgd       1/2 |M k - v|^2 + 1/(2 eta) |M - M_t|^2     as delta, eta / (1 + eta |k|^2)             Eq. 56-57
    oja       -<M k, v> + 1/2 |M^T v|^2                   alpha M + eta v (k - M^T v)^T               Eq. 66-67

Symbols   M memory; k key, shape (..., d_k); v value, shape (..., d_v); eta = lr, the strength of the write;
          alpha = retain, the part of the old memory that survives the write (1: all of it, 0: none).
A memory with a single slot has the key 1: pass `k=None`, then `M` has the shape of `v`, whatever that is. Momentum and
the moments of Adam are such memories, one for each weight.
Source    Behrouz et al. 2025, Nested Learning, sections 3.1 and 5.
"""

from __future__ import annotations

from torch import Tensor

Scale = float | Tensor


def read(M: Tensor, k: Tensor) -> Tensor:
    """Answer the key `k` from the memory: M k.

    Args     M: (..., d_v, d_k). k: (..., d_k).
    Returns  the value the memory holds for the key, shape (..., d_v).
    Raises   ValueError if the last sizes of M and k differ.
    """
    if M.ndim < 2 or k.ndim < 1 or M.shape[-1] != k.shape[-1]:
        raise ValueError(f"read expects M (..., d_v, d_k) and k (..., d_k), got {_shapes(M=M, k=k)}")
    return (M @ k.unsqueeze(-1)).squeeze(-1)


def hebbian(
    M: Tensor, k: Tensor | None, v: Tensor, lr: Scale = 1.0, retain: Scale = 1.0, out: Tensor | None = None
) -> Tensor:
    r"""Write the pair (k, v) by adding it: alpha M + eta v k^T.

    One step of gradient descent on -<M k, v>. What was stored before is not looked at, so nothing is corrected.

    Args     M: (..., d_v, d_k). k: (..., d_k), or None for a memory with one slot (then M has the shape of v).
             v: (..., d_v). lr, retain: numbers, or tensors with the leading shape of M.
             out: a tensor to write into, `M` itself to write in place; None leaves M as it was.
    Returns  the memory after the write, the shape of M.
    Raises   ValueError if the shapes do not fit.
    Source   Eq. 5 (fast weights), 33 (momentum), 64 (linear attention).
    """
    if k is None:
        if M.shape != v.shape:
            raise ValueError(f"a memory with one slot has the shape of its value, got {_shapes(M=M, v=v)}")
        return _blend(M, v, lr, retain, out)
    _check_fit(M, k, v)
    return _blend(M, _outer(v, k), lr, retain, out)


def delta(M: Tensor, k: Tensor, v: Tensor, lr: Scale = 1.0, retain: Scale = 1.0, out: Tensor | None = None) -> Tensor:
    r"""Write the pair (k, v) by correcting what the memory answers now: alpha M + eta (v - M k) k^T.

    One step of gradient descent on 1/2 |M k - v|^2. With |k| = 1 and eta = 1 the memory answers v afterwards.

    Args     as in `hebbian`, k is needed.
    Returns  the memory after the write, the shape of M.
    Raises   ValueError if the shapes do not fit.
    Source   Eq. 48-49 (delta momentum), 65 (DeltaNet); the missing step size of Eq. 49 is put back.
    """
    _check_fit(M, k, v)
    return _blend(M, _outer(v - read(M, k), k), lr, retain, out)


def dgd(M: Tensor, k: Tensor, v: Tensor, lr: Scale = 1.0, retain: Scale = 1.0, out: Tensor | None = None) -> Tensor:
    r"""Write the pair (k, v) by the exact best correction: the delta rule with eta / (1 + eta |k|^2).

    At alpha = 1 it is the minimiser of 1/2 |M' k - v|^2 + 1/(2 eta) |M' - M|^2 over M'; no eta makes it overshoot.

    Args     as in `hebbian`, k is needed; eta >= 0.
    Returns  the memory after the write, the shape of M.
    Raises   ValueError if the shapes do not fit.
    Source   Eq. 56-57, with the factor for keys of any length (the paper's eta / (1 + eta) holds for |k| = 1).
    """
    _check_fit(M, k, v)
    step = lr / (1.0 + lr * k.square().sum(-1))
    return _blend(M, _outer(v - read(M, k), k), step, retain, out)


def oja(M: Tensor, k: Tensor, v: Tensor, lr: Scale = 1.0, retain: Scale = 1.0, out: Tensor | None = None) -> Tensor:
    r"""Write the pair (k, v) less what the memory holds for the value already: alpha M + eta v (k - M^T v)^T.

    One step of gradient descent on -<M k, v> + 1/2 |M^T v|^2.

    Args     as in `hebbian`, k is needed.
    Returns  the memory after the write, the shape of M.
    Raises   ValueError if the shapes do not fit.
    Source   Eq. 66-67, with the missing transpose of Eq. 66.
    """
    _check_fit(M, k, v)
    return _blend(M, _outer(v, k - read(M.mT, v)), lr, retain, out)


def _outer(v: Tensor, k: Tensor) -> Tensor:
    return v.unsqueeze(-1) * k.unsqueeze(-2)  # (..., d_v, 1) * (..., 1, d_k) -> (..., d_v, d_k)


def _blend(M: Tensor, write: Tensor, lr: Scale, retain: Scale, out: Tensor | None) -> Tensor:
    """Return retain * M + lr * write; in place without a temporary when `out` is `M` and the scales are numbers."""
    if out is M and not isinstance(lr, Tensor) and not isinstance(retain, Tensor):
        if lr + retain == 1.0:
            return M.lerp_(write, lr)  # a moving average, in one pass over M
        return (M if retain == 1.0 else M.mul_(retain)).add_(write, alpha=lr)
    after = _over(retain, M) * M + _over(lr, M) * write
    return after if out is None else out.copy_(after)


def _over(scale: Scale, M: Tensor) -> Scale:
    """Give a tensor of scales the trailing axes it needs to multiply M."""
    if not isinstance(scale, Tensor) or scale.ndim == 0:
        return scale
    return scale.reshape(scale.shape + (1,) * (M.ndim - scale.ndim))


def _check_fit(M: Tensor, k: Tensor, v: Tensor) -> None:
    if not (isinstance(k, Tensor) and isinstance(v, Tensor)):
        raise TypeError(f"keys and values are tensors, got k: {type(k).__name__}, v: {type(v).__name__}")
    if M.ndim < 2 or k.ndim < 1 or v.ndim < 1 or M.shape[-1] != k.shape[-1] or M.shape[-2] != v.shape[-1]:
        raise ValueError(f"a write expects M (..., d_v, d_k), k (..., d_k), v (..., d_v), got {_shapes(M=M, k=k, v=v)}")


def _shapes(**tensors: Tensor) -> str:
    return ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in tensors.items())
