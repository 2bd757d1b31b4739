r"""Memories that rewrite how they learn: the projections, the learning rate and the retention are memories too.

    y_t = M_memory,t-1 q_t
    k_t, v_t, eta_t, alpha_t    from  M_k x_t,  M_v x_t,  M_lr x_t,  M_retain x_t
    vhat_box,t = M_box v_t                                                        each makes its own target
    M_box,t = M_box,t-1 (alpha_t I - eta_t k_t k_t^T) + eta_t vhat_box,t k_t^T    delta rule (Eq. 92, sign corrected)
            ... - eta_t (M_box k_t - vhat_box,t) k_t^T                            in place of the last term: Eq. 93

Everything that is generated comes from the states at the start of the chunk (Eq. 90, index as its text says); what is
inside a chunk is then exact. Gradients of the outer loop flow through all writes, so every box learns how to start.

Symbols   x token, (B, H, T, d): each head reads its part of the token; S (B, H, R, d), all boxes one below the other.
Source    Behrouz et al. 2025, Nested Learning, section 8, Eq. 83-93.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from nlcore.sequence.checks import check_lengths, check_state_dtype, live_tokens
from nlcore.sequence.saving import map_tensors
from nlcore.sequence.self_modifying.checks import check_input
from nlcore.sequence.self_modifying.chunks import chunk_loop
from nlcore.sequence.self_modifying.compiled import compiled_loop
from nlcore.sequence.self_modifying.loop import token_loop
from nlcore.sequence.self_modifying.rules import Boxes, Rules
from nlcore.sequence.self_modifying.state import SelfModifyingState, new_state
from nlcore.sequence.states import precise


def self_modifying_memory(
    x: Tensor,
    q: Tensor | None,
    boxes: Boxes,
    rules: Rules | None = None,
    *,
    state: SelfModifyingState | None = None,
    token_by_token: bool = False,
    lengths: Tensor | None = None,
    backend: str | Callable | None = None,
) -> tuple[Tensor, SelfModifyingState]:
    """Read a stream with boxes that rewrite themselves.

    Args     x: (B, H, T, d), what the boxes read. q: (B, H, T, d), the queries; None with
             `adaptive_q`, where a box generates them. boxes: where all streams start, (H, R, d) and the biases.
             rules: the choices; None takes the default ones. state: from the call before; None begins new streams.
             token_by_token: the plain loop instead of the chunk form; both give the same.
             lengths: (B,), real tokens of each stream; the rest is padding, which rewrites nothing and is answered 0.
             backend: of torch.compile, which then compiles what a chunk does, once for all chunks; None for none.
    Returns  y: (B, H, T, d), in the dtype of x. The state, in float32 for half precision.
    Raises   ValueError for shapes that do not fit; TypeError for other dtypes.
    Source   Eq. 83-93.
    """
    rules = Rules() if rules is None else rules
    _check(x, q, boxes, rules, state)
    check_lengths(lengths, x)
    dtype = precise(x.dtype)
    boxes = map_tensors(boxes, lambda part: part.to(dtype))
    tokens, queries = x.to(dtype), None if q is None else q.to(dtype)
    state = new_state(boxes, rules, len(x)) if state is None else state
    if not x.shape[2]:
        return x, state
    live = live_tokens(lengths, tokens)
    stream = tokens, queries, boxes, rules, state, live
    if token_by_token or backend is None:
        y, state = token_loop(*stream) if token_by_token else chunk_loop(*stream)
    else:
        y, state = compiled_loop(*stream, backend)
    return (y if live is None else y * live[..., None]).to(x.dtype), state


def _check(x: Tensor, q: Tensor | None, boxes: Boxes, rules: Rules, state: SelfModifyingState | None) -> None:
    check_input(x, q, boxes.lr_bias, boxes.retain_bias, rules)
    expected = (x.shape[1], rules.all_rows(x.shape[-1]), x.shape[-1])
    if tuple(boxes.start.shape) != expected:
        names = ", ".join(rules.boxes)
        raise ValueError(
            f"expected starts (H, R, d) = {expected} for the boxes {names}; got {tuple(boxes.start.shape)}"
        )
    if state is None:
        return
    if tuple(state.S.shape) != (len(x), *expected):
        raise ValueError(
            f"the state is of another stream: expected S {(len(x), *expected)}, got {tuple(state.S.shape)}"
        )
    check_state_dtype(state.S, precise(x.dtype))
    if (state.Z is not None) != bool(rules.momentum):
        raise ValueError(f"momentum={rules.momentum} but the state has {'no' if state.Z is None else 'a'} momentum Z")
