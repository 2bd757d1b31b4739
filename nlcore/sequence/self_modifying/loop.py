"""The plain loop: one token after the other, one box after the other. The reference of the chunk form.

    open       at the start of a chunk, the anchor of a box becomes its present state    (Eq. 90)
    generate   k, v, lr, retain from the anchors, and a target vhat = M_box v for each   (Eq. 83-85)
    read       y_t = M_memory q_t, before the write                                      (Eq. 83, 94)
    write      every box with (k, vhat) by the delta rule, the literal DGD, or adding    (Eq. 88, 92, 93)

Symbols   now, anchor, Z, start: a dictionary each, from the name of a box to a tensor (B, H, rows, d): its state, the
          one at the start of its chunk, its momentum, and the learned one it began with.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import repeat

import torch
from torch import Tensor

from nlcore.memory import Scale, delta, hebbian, read
from nlcore.sequence.saving import map_tensors
from nlcore.sequence.self_modifying.boxes import Generated, generate, targets
from nlcore.sequence.self_modifying.rules import Boxes, Rules
from nlcore.sequence.self_modifying.state import SelfModifyingState, cut_history

Parts = dict[str, Tensor]


def token_loop(
    x: Tensor, q: Tensor | None, boxes: Boxes, rules: Rules, state: SelfModifyingState, live: Tensor | None
) -> tuple[Tensor, SelfModifyingState]:
    """Open, generate, read, write, for every token in turn.

    Args     x: (B, H, T, d), at least one token. q: (B, H, T, d), or None if the queries are generated. boxes: the
             starts. rules: the choices. state: where the stream is. live: (B, 1, T), 1 for a token, 0 for padding; None
             if there is no padding.
    Returns  y (B, H, T, d) and the state after it.
    """
    now, anchor, Z, start = (_by_box(S, rules) for S in (state.S, state.anchor, state.Z, boxes.start))
    lives: Iterable[Tensor | None] = repeat(None) if live is None else live.unbind(-1)
    answers = []
    for t, (x_t, q_t, live_t) in enumerate(zip(x.unbind(2), _each(q, x), lives, strict=False), state.tokens):
        for name in (name for name in now if t % rules.chunk_of(name) == 0):
            now[name], Z[name] = cut_history(now[name], Z.get(name), start[name], rules)
            anchor[name] = (
                now[name] if live_t is None else torch.where(live_t[..., None, None] > 0, now[name], anchor[name])
            )
        made, target = _generate(x_t, anchor, boxes, rules, live_t)
        answers.append(read(now["memory"], made.query(q_t)))
        for name in rules.written:
            value = target[name] - read(anchor[name], made.k) if rules.rule == "dgd_l2" else target[name]
            lr = made.lr if boxes.rate is None or name == "memory" else made.lr * boxes.rate
            origin = start[name].expand_as(now[name]) if rules.returns else torch.zeros_like(now[name])
            now[name], Z[name] = _write(now[name], Z[name], origin, made, value, lr, rules, live_t)
    return torch.stack(answers, 2), _gather(now, anchor, Z, state.tokens + len(answers))


def _write(
    M: Tensor,
    Z: Tensor | None,
    origin: Tensor,
    made: Generated,
    value: Tensor,
    lr: Tensor,
    rules: Rules,
    live: Tensor | None,
) -> tuple[Tensor, Tensor | None]:
    """Write one box: M (alpha I - eta k k^T) + eta value k^T; M - origin fades, the last term may have momentum.

    The Hebbian rule has no eta k k^T.
    """
    retain: Scale = 1.0 if made.log_retain is None else made.log_retain.exp()
    beta, write, at_origin = rules.momentum, delta, read(origin, made.k)
    if rules.rule == "hebbian":
        write, at_origin = hebbian, torch.zeros_like(at_origin)
    if Z is None:
        return origin + write(M - origin, made.k, value - at_origin, lr, retain), None
    Z = hebbian(Z, made.k, value, lr, beta if live is None else 1.0 - live * (1.0 - beta))
    moved = Z if live is None else Z * live[..., None, None]
    return origin + write(M - origin, made.k, -at_origin, lr, retain) + moved, Z


def _generate(x: Tensor, anchor: Parts, boxes: Boxes, rules: Rules, live: Tensor | None) -> tuple[Generated, Parts]:
    """Return what one token x (B, H, d) generates and the target of each box (B, H, rows)."""
    S = torch.cat(list(anchor.values()), -2)
    made = generate(x.unsqueeze(2), S, boxes, rules, None if live is None else live.unsqueeze(-1))
    found = targets(made.v, S, rules).squeeze(2)
    target = found.split([box.shape[-2] for box in anchor.values()], -1)
    return map_tensors(made, lambda part: part.squeeze(2)), dict(zip(anchor, target, strict=True))


def _each(q: Tensor | None, x: Tensor) -> Iterable[Tensor]:
    return (x if q is None else q).unbind(2)


def _by_box(S: Tensor | None, rules: Rules) -> dict:
    if S is None:
        return dict.fromkeys(rules.boxes)
    return {name: S[..., rows, :] for name, rows in rules.rows(S.shape[-1]).items()}


def _gather(now: Parts, anchor: Parts, Z: dict, tokens: int) -> SelfModifyingState:
    S, A = (torch.cat(list(parts.values()), -2) for parts in (now, anchor))
    return SelfModifyingState(S, A, None if Z["memory"] is None else torch.cat(list(Z.values()), -2), tokens)
