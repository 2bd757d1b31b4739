"""What self-modifying memories ask of their input, and what they say when they get something else."""

from __future__ import annotations

from torch import Tensor

from nlcore.sequence.self_modifying.rules import Rules


def check_input(x: Tensor, q: Tensor | None, lr_bias: Tensor, retain_bias: Tensor, rules: Rules) -> None:
    """Raise ValueError or TypeError unless x (B, H, T, d), q and the biases (H,) fit each other and the rules."""
    if not isinstance(x, Tensor) or not x.is_floating_point():
        raise TypeError(f"x must be a floating-point tensor, got {getattr(x, 'dtype', type(x).__name__)}")
    if x.ndim != 4:
        raise ValueError(f"expected x of shape (B, H, T, d), got {tuple(x.shape)}")
    if rules.adaptive_q and q is not None:
        raise ValueError("with adaptive_q=True a box generates the queries: pass q=None")
    if not rules.adaptive_q and q is None:
        raise ValueError("expected q, the queries, got None; or let a box generate them with adaptive_q=True")
    if q is not None and (q.shape != x.shape or q.dtype != x.dtype):
        raise ValueError(f"expected q like x, {tuple(x.shape)} {x.dtype}; got {tuple(q.shape)} {q.dtype}")
    for name, bias in (("lr_bias", lr_bias), ("retain_bias", retain_bias)):
        if tuple(bias.shape) != (x.shape[1],):
            raise ValueError(f"expected {name} of shape (H,) = ({x.shape[1]},), got {tuple(bias.shape)}")
