"""Self-modifying memories whose boxes are networks: the plain loop, the chunk form, and the function that picks one.

Source    Behrouz et al. 2025, Nested Learning, section 8, Eq. 83-91.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import repeat

import torch
from torch import Tensor
from torch.nn.functional import gelu

from nlcore.memory import delta, hebbian
from nlcore.memory import read as read_matrix
from nlcore.sequence.checks import check_lengths, check_state_dtype, live_tokens
from nlcore.sequence.compiling import compiled
from nlcore.sequence.saving import map_tensors
from nlcore.sequence.self_modifying.checks import check_input
from nlcore.sequence.self_modifying.chunks import replaced, segment_sizes
from nlcore.sequence.self_modifying.networks import NetworkBoxes, NetworkState, answer, descent, generate
from nlcore.sequence.self_modifying.rules import Rules
from nlcore.sequence.self_modifying.segments import Piece, answer_before, kept, read, state_after, write
from nlcore.sequence.states import precise


def self_modifying_networks(
    x: Tensor,
    q: Tensor | None,
    boxes: NetworkBoxes,
    rules: Rules,
    *,
    lr_bound: float | None = 1.0,
    state: NetworkState | None = None,
    token_by_token: bool = False,
    lengths: Tensor | None = None,
    backend: str | Callable | None = None,
) -> tuple[Tensor, NetworkState]:
    """Read a stream with boxes x + W1 gelu(W2 x) that rewrite themselves.

    Args     x, q, state, token_by_token, lengths, backend: as for `self_modifying_memory`. boxes: where all streams
             start. rules: the choices; without momentum; `own_value` has no meaning here, the residual path is always
             there. lr_bound: lr is at most lr_bound / C, C the longer chunk, so that one key repeated through a chunk
             cannot overshoot (gradients are those of its start); None leaves lr as it is.
    Returns  y: (B, H, T, d), in the dtype of x. The state, in float32 for half precision.
    Raises   ValueError for shapes or rules that do not fit; TypeError for other dtypes.
    Source   Eq. 89-91.
    """
    _check(x, q, boxes, rules, state)
    check_lengths(lengths, x)
    dtype = precise(x.dtype)
    boxes = map_tensors(boxes, lambda part: part.to(dtype))
    if lr_bound is not None:
        rules = replace(rules, lr_max=min(rules.lr_max, lr_bound / max(rules.chunks)))
    state = new_network_state(boxes, len(x)) if state is None else state
    if not x.shape[2]:
        return x, state
    tokens, queries, live = x.to(dtype), None if q is None else q.to(dtype), live_tokens(lengths, x.to(dtype))
    sizes = [1] * x.shape[2] if token_by_token else segment_sizes(state.tokens, x.shape[2], rules.chunks)
    plain = _token if token_by_token else write_segment
    whole = plain if token_by_token else compiled(write_segment, backend, False)
    pieces: list[Iterable[Tensor | None]] = [
        repeat(None) if part is None else part.split(sizes, 2) for part in (queries, live)
    ]
    answers, read_so_far = [], state.tokens
    for size, x_n, q_n, live_n in zip(sizes, tokens.split(sizes, 2), *pieces, strict=False):
        state = _opened(state._replace(tokens=read_so_far), boxes, rules, live_n)
        write_now = whole if size == min(rules.chunks) else plain
        y, state = write_now(x_n, q_n, boxes, rules, state._replace(tokens=0), live_n)
        read_so_far += size
        answers.append(y)
    y, state = torch.cat(answers, 2), state._replace(tokens=read_so_far)
    return (y if live is None else y * live[..., None]).to(x.dtype), state


def new_network_state(boxes: NetworkBoxes, batch_size: int) -> NetworkState:
    """Return the state of `batch_size` streams that have not read anything."""
    W1, W2 = (W.expand(batch_size, *(-1,) * W.ndim) for W in (boxes.W1, boxes.W2))
    return NetworkState(W1, W2, W1, W2)


def _token(
    x: Tensor, q: Tensor | None, boxes: NetworkBoxes, rules: Rules, state: NetworkState, live: Tensor | None
) -> tuple[Tensor, NetworkState]:
    """Read, then write one token, box after box; x (B, H, 1, d)."""
    made = generate(x, state.anchor1, state.anchor2, boxes, rules, live)
    asked = descent(made.k, made.v, state.anchor1, state.anchor2, rules)
    y = answer(state.W1[:, :, -1], state.W2[:, :, -1], made.query(q))
    k, retain = made.k[:, :, 0], 1.0 if made.log_retain is None else made.log_retain[..., 0].exp()
    W1, W2 = list(state.W1.unbind(2)), list(state.W2.unbind(2))
    for i, name in enumerate(rules.boxes):
        if name not in rules.written:
            continue
        lr = made.lr[..., 0] if boxes.rate is None or name == "memory" else made.lr[..., 0] * boxes.rate
        h, err, dz = (part[:, :, i, 0] for part in asked)
        back1, back2 = (W[:, i] if rules.returns else torch.zeros_like(W[:, i]) for W in (boxes.W1, boxes.W2))
        W1[i] = back1 + hebbian(W1[i] - back1, h, -err, lr, retain)
        W2[i] = back2 + delta(W2[i] - back2, k, -dz - read_matrix(back2, k), lr, retain)
    return y, NetworkState(torch.stack(W1, 2), torch.stack(W2, 2), *state[2:4], state.tokens)


def write_segment(
    x: Tensor, q: Tensor | None, boxes: NetworkBoxes, rules: Rules, state: NetworkState, live: Tensor | None
) -> tuple[Tensor, NetworkState]:
    """Read and write a segment (B, H, n, d) in which no anchor changes; the clock of the state stands still."""
    made = generate(x, state.anchor1, state.anchor2, boxes, rules, live)
    asked = descent(made.k, made.v, state.anchor1, state.anchor2, rules)
    query, new1, new2 = made.query(q), [], []
    for some, slow in rules.groups(1, boxes.rate is not None):
        left = kept(made.lr * boxes.rate if slow and boxes.rate is not None else made.lr, made.log_retain)
        h, err, dz = (part[:, :, some] for part in asked)
        inner = Piece(state.W2[:, :, some].flatten(2, 3), boxes.W2[:, some].flatten(1, 2) if rules.returns else None)
        outer = Piece(state.W1[:, :, some], boxes.W1[:, some] if rules.returns else None)
        right = -dz.transpose(2, 3).flatten(3) - answer_before(inner, made.k, left)
        end, errors = write(inner, made.k, None, right, left)
        new1.append((some, state_after(outer, h, (left.errors[..., -1, :, None]).unsqueeze(2) * -err, left.beside(2))))
        new2.append((some, end.S.unflatten(2, dz.shape[2:5:2])))
    if "memory" in rules.written:  # it is the last box of the last group
        last = slice(-h.shape[-1], None)
        heard = gelu(read(inner.rows(last), query, made.k, errors[..., last], None, left))
        outer = Piece(state.W1[:, :, -1], boxes.W1[:, -1] if rules.returns else None)
        y = query + read(outer, heard, h[:, :, -1], -err[:, :, -1], None, left)
    else:
        y = answer(state.W1[:, :, -1], state.W2[:, :, -1], query)
    W1, W2 = replaced(state.W1, new1, 2), replaced(state.W2, new2, 2)
    return y, NetworkState(W1, W2, *state[2:4], state.tokens)


def _opened(state: NetworkState, boxes: NetworkBoxes, rules: Rules, live: Tensor | None) -> NetworkState:
    """Renew the anchors of the boxes whose chunk begins with the next token, if there is a next token."""
    memory, others = (state.tokens % size == 0 for size in rules.chunks)
    if not (memory or others):
        return state
    last = state.W1.shape[2] - 1
    due = slice(0 if others else last, last + 1 if memory else last)
    now, anchors = [], []
    for W, anchor, start in zip(state[:2], state[2:4], boxes[:2], strict=True):
        W_due = W[:, :, due]
        if rules.detach:
            W_due = start[:, due] + (W_due - start[:, due]).detach()
        now.append(replaced(W, [(due, W_due)], 2))
        if live is not None:
            W_due = torch.where(live[..., :1, None, None] > 0, W_due, anchor[:, :, due])
        anchors.append(replaced(anchor, [(due, W_due)], 2))
    return NetworkState(now[0], now[1], anchors[0], anchors[1], state.tokens)


def _check(x: Tensor, q: Tensor | None, boxes: NetworkBoxes, rules: Rules, state: NetworkState | None) -> None:
    check_input(x, q, boxes.lr_bias, boxes.retain_bias, rules)
    if rules.momentum:
        raise ValueError(f"boxes that are networks have no momentum, got momentum={rules.momentum}; use 0")
    if rules.rule == "hebbian":
        raise ValueError("boxes that are networks have no Hebbian write, use rule='delta' or boxes that are matrices")
    N, d = len(rules.boxes), x.shape[-1]
    found = tuple(boxes.W1.shape), tuple(boxes.W2.shape)
    if boxes.W1.ndim != 4 or found != ((x.shape[1], N, d, h := found[0][-1]), (x.shape[1], N, h, d)):
        names = ", ".join(rules.boxes)
        raise ValueError(
            f"expected W1 (H, N, d, h) and W2 (H, N, h, d), H={x.shape[1]}, d={d}, boxes {names}; got {found}"
        )
    if state is None:
        return
    if tuple(state.W1.shape) != (len(x), *found[0]):
        raise ValueError(
            f"the state is of another stream: expected W1 {(len(x), *found[0])}, got {tuple(state.W1.shape)}"
        )
    check_state_dtype(state.W1, precise(x.dtype))
