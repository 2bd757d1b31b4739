"""The chunk form: all tokens between two openings of anchors at once, equal to the plain loop but for rounding.

Chunks follow one another, because each generates its keys and targets from the state at its start; inside one, all is
matrix products and one triangular solve for all boxes together (`segments`).

Source   Behrouz et al. 2025, Nested Learning, Eq. 90 and section 8.2.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import repeat

import torch
from torch import Tensor

from nlcore.sequence.self_modifying.boxes import generate, targets
from nlcore.sequence.self_modifying.rules import Boxes, Rules
from nlcore.sequence.self_modifying.segments import Piece, kept, read, write
from nlcore.sequence.self_modifying.state import SelfModifyingState, cut_history


def chunk_loop(
    x: Tensor, q: Tensor | None, boxes: Boxes, rules: Rules, state: SelfModifyingState, live: Tensor | None
) -> tuple[Tensor, SelfModifyingState]:
    """Open, generate, read, write, for every segment in turn.

    Args, Returns   as for `token_loop`.
    """
    sizes = segment_sizes(state.tokens, x.shape[2], rules.chunks)
    queries: Iterable[Tensor | None] = repeat(None) if q is None else q.split(sizes, 2)
    lives: Iterable[Tensor | None] = repeat(None) if live is None else live.split(sizes, 2)
    answers = []
    for x_n, q_n, live_n in zip(x.split(sizes, 2), queries, lives, strict=False):
        state = _opened(state, boxes, rules, live_n)
        y, state = _segment(x_n, q_n, boxes, rules, state, live_n)
        answers.append(y)
    return torch.cat(answers, 2), state


def segment_sizes(tokens: int, length: int, chunks: tuple[int, int]) -> list[int]:
    """Return the sizes of the pieces into which the boundaries of both chunk sizes cut the next `length` tokens.

    Args     tokens: how many were read before. length: T. chunks: the two chunk sizes.
    """
    inside = [t for t in range(tokens + 1, tokens + length) if t % chunks[0] == 0 or t % chunks[1] == 0]
    edges = [tokens, *inside, tokens + length]
    return [end - begin for begin, end in zip(edges, edges[1:], strict=False)]


def _opened(state: SelfModifyingState, boxes: Boxes, rules: Rules, live: Tensor | None) -> SelfModifyingState:
    """Renew the anchors of the boxes whose chunk begins with the next token, if there is a next token."""
    memory, others = (state.tokens % size == 0 for size in rules.chunks)
    if not (memory or others):
        return state
    width = state.S.shape[-1]
    split = state.S.shape[-2] - width
    due = slice(0 if others else split, split + width if memory else split)
    Z = None if state.Z is None else state.Z[..., due, :]
    S, Z = cut_history(state.S[..., due, :], Z, boxes.start[..., due, :], rules)
    anchor = S if live is None else torch.where(live[..., :1, None] > 0, S, state.anchor[..., due, :])
    Z = None if Z is None else _replaced(state.Z, [(due, Z)])
    return SelfModifyingState(_replaced(state.S, [(due, S)]), _replaced(state.anchor, [(due, anchor)]), Z, state.tokens)


def _segment(
    x: Tensor, q: Tensor | None, boxes: Boxes, rules: Rules, state: SelfModifyingState, live: Tensor | None
) -> tuple[Tensor, SelfModifyingState]:
    """Read and write a segment (B, H, n, d) in which no anchor changes."""
    made = generate(x, state.anchor, boxes, rules, live)
    value = targets(made.v, state.anchor, rules)
    if rules.rule == "dgd_l2":
        value = value - made.k @ state.anchor.mT
    q = made.q if q is None else q
    begin, width = Piece(state.S, boxes.start if rules.returns else None, state.Z), x.shape[-1]
    y, ends = None, []
    for rows, slow in rules.groups(width, boxes.rate is not None):
        left = kept(made.lr * boxes.rate if slow else made.lr, made.log_retain, rules.momentum, live)
        end, added = write(begin.rows(rows), made.k, value[..., rows], left)
        ends.append((rows, end))
    if "memory" in rules.written:  # its rows are the last of the last group
        y = read(begin.rows(slice(-width, None)), q, made.k, added.rows(slice(-width, None)), left)
    else:
        y = q @ state.S[..., -width:, :].mT
    S = _replaced(state.S, [(rows, end.S) for rows, end in ends])
    Z = None if state.Z is None else _replaced(state.Z, [(rows, end.Z) for rows, end in ends])
    return y, SelfModifyingState(S, state.anchor, Z, state.tokens + x.shape[2])


def _replaced(old: Tensor, new: list[tuple[slice, Tensor]]) -> Tensor:
    """Return `old` (B, H, R, d) with some rows replaced."""
    if len(new) == 1 and new[0][1].shape == old.shape:
        return new[0][1]
    parts, at = [], 0
    for rows, part in new:
        parts += [old[..., at : rows.start, :], part]
        at = rows.stop
    return torch.cat([*parts, old[..., at:, :]], -2)
