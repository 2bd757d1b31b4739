"""The chunk form: all tokens between two openings of anchors at once, equal to the plain loop but for rounding.

Chunks follow one another, because each generates its keys and targets from the state at its start; inside one, all is
matrix products and one triangular solve for all boxes together (`segments`). What is read waits until the end: the
answers of all segments of one size are then computed together.

Symbols   G = B H, streams and heads as one axis; n tokens in a segment.
Source    Behrouz et al. 2025, Nested Learning, Eq. 90 and section 8.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import repeat
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from nlcore.sequence.saving import map_tensors
from nlcore.sequence.self_modifying.boxes import Generated, generate, targets
from nlcore.sequence.self_modifying.rules import Boxes, Rules, runs
from nlcore.sequence.self_modifying.segments import Kept, Piece, answer_before, kept, read, write
from nlcore.sequence.self_modifying.state import SelfModifyingState, cut_history


class Reading(NamedTuple):
    """What a segment leaves behind to be read: the memory it began with, and what its tokens wrote into it."""

    begin: Piece
    q: Tensor
    k: Tensor
    errors: Tensor
    values: Tensor | None
    left: Kept


class Flat(NamedTuple):
    """A stretch with streams and heads as one axis.

    Args     lines: x (G, T, d), q and live or None. boxes: for each of G. origins: for each run of rows that are
             treated alike, what fading returns to, or None; then the same for the memory alone. state: (G, R, d).
    """

    lines: tuple[Tensor | None, ...]
    boxes: Boxes
    origins: Sequence[Tensor | None]
    state: SelfModifyingState

    def cut(self, sizes: list[int]) -> zip:
        """Return the lines cut into pieces of these sizes."""
        lines = (repeat(None) if line is None else line.split(sizes, 1) for line in self.lines)
        return zip(sizes, *lines, strict=False)


def flattened(
    x: Tensor, q: Tensor | None, boxes: Boxes, rules: Rules, state: SelfModifyingState, live: Tensor | None
) -> Flat:
    """Return the stretch with one axis for B and H; arguments as for `token_loop`."""
    B, H = x.shape[:2]
    wide = Boxes(boxes.start.repeat(B, 1, 1), boxes.lr_bias.repeat(B), boxes.retain_bias.repeat(B), boxes.rate)
    lines = (x, q, None if live is None else live.expand(B, H, -1))
    return Flat(
        tuple(None if line is None else line.flatten(0, 1) for line in lines),
        wide,
        origins_of(wide, rules),
        map_tensors(state, lambda part: part.flatten(0, 1)),
    )


def origins_of(boxes: Boxes, rules: Rules) -> list[Tensor | None]:
    """Return what fading returns to, see `Flat`."""
    width = boxes.start.shape[-1]
    heights = [rows.stop - rows.start for rows, *_ in rules.runs(width, boxes.rate is not None)]
    if not rules.returns:
        return [None] * (len(heights) + 1)
    return [*boxes.start.split(heights, -2), boxes.start[..., -width:, :]]


def chunk_loop(
    x: Tensor, q: Tensor | None, boxes: Boxes, rules: Rules, state: SelfModifyingState, live: Tensor | None
) -> tuple[Tensor, SelfModifyingState]:
    """Open, generate and write, segment after segment; then read. Arguments as for `token_loop`."""
    flat, shape = flattened(x, q, boxes, rules, state, live), x.shape[:2]
    sizes = segment_sizes(state.tokens, x.shape[2], rules.chunks)
    now, readings = flat.state, []
    for size, x_n, q_n, live_n in flat.cut(sizes):
        now = opened(now, flat.boxes, rules, live_n)
        reading, now = write_segment(x_n, q_n, flat.boxes, flat.origins, rules, now, live_n)
        now = now._replace(tokens=now.tokens + size)
        readings.append(reading)
    y = _read_all(readings, sizes).unflatten(0, shape)
    return y, map_tensors(now, lambda part: part.unflatten(0, shape))


def segment_sizes(tokens: int, length: int, chunks: tuple[int, int]) -> list[int]:
    """Return the sizes of the pieces into which the boundaries of both chunk sizes cut the next `length` tokens.

    Args     tokens: how many were read before. length: T. chunks: the two chunk sizes.
    """
    inside = [t for t in range(tokens + 1, tokens + length) if t % chunks[0] == 0 or t % chunks[1] == 0]
    edges = [tokens, *inside, tokens + length]
    return [end - begin for begin, end in zip(edges, edges[1:], strict=False)]


def opened(state: SelfModifyingState, boxes: Boxes, rules: Rules, live: Tensor | None) -> SelfModifyingState:
    """Renew the anchors of the boxes whose chunk begins with the next token, if there is a next token."""
    memory, others = (state.tokens % size == 0 for size in rules.chunks)
    if not (memory or others):
        return state
    if memory and others and live is None:
        S, Z = cut_history(state.S, state.Z, boxes.start, rules)
        return SelfModifyingState(S, S, Z, state.tokens)
    height, width = state.S.shape[-2:]
    due = slice(0 if others else height - width, height if memory else height - width)
    Z = None if state.Z is None else state.Z[..., due, :]
    S, Z = cut_history(state.S[..., due, :], Z, boxes.start[..., due, :], rules)
    anchor = S if live is None else torch.where(live[:, :1, None] > 0, S, state.anchor[..., due, :])
    new_Z = None if Z is None or state.Z is None else replaced(state.Z, [(due, Z)])
    return SelfModifyingState(
        replaced(state.S, [(due, S)]), replaced(state.anchor, [(due, anchor)]), new_Z, state.tokens
    )


def write_segment(
    x: Tensor,
    q: Tensor | None,
    boxes: Boxes,
    origins: Sequence[Any],
    rules: Rules,
    state: SelfModifyingState,
    live: Tensor | None,
) -> tuple[Reading, SelfModifyingState]:
    """Write a segment (G, n, d) in which no anchor changes, and say what there is to read.

    Args     origins: see `Flat`. state: its clock does not matter and stands still.
    """
    runs = rules.runs(x.shape[-1], boxes.rate is not None)
    made = generate(x, state.anchor, boxes, rules, live)
    begin, width = Piece(state.S, boxes.start if rules.returns else None, state.Z), x.shape[-1]
    left = kept(made.lr, made.log_retain, rules.momentum, live)
    value, right = _right_side(made, begin, state.anchor, left, rules)
    heights = [run[0].stop - run[0].start for run in runs]
    pieces = begin._replace(origin=None).split(heights)
    values: Any = repeat(None) if value is None else value.split(heights, -1)
    ends: list[Piece] = []
    errors, said, kept_memory = torch.zeros_like(x), None, Kept(None, left.errors)  # of a memory that is not written
    for (_, written, slow), piece, origin, said, rest in zip(
        runs, pieces, origins, values, right.split(heights, -1), strict=False
    ):
        if not written:
            ends.append(piece)
            continue
        part = left.scaled(boxes.rate) if slow and boxes.rate is not None else left
        end, errors = write(piece._replace(origin=origin), made.k, said, rest, part, rules.rule != "hebbian")
        ends.append(end)
    if "memory" in rules.written:
        kept_memory = left
    else:
        errors, said = torch.zeros_like(x), None
    last = (begin._replace(origin=None).rows(slice(-width, None)) if heights[-1] > width else pieces[-1])._replace(
        origin=origins[-1]
    )
    said = said if said is None else said[..., -width:]
    reading = Reading(last, made.query(q), made.k, errors[..., -width:], said, kept_memory)
    S, Z = (_joined([getattr(end, name) for end in ends]) for name in ("S", "Z"))
    assert S is not None
    return reading, SelfModifyingState(S, state.anchor, Z, state.tokens)


def _joined(parts: list[Tensor]) -> Tensor | None:
    return parts[0] if len(parts) == 1 else None if parts[0] is None else torch.cat(parts, -2)


def _right_side(
    made: Generated, begin: Piece, anchor: Tensor, left: Kept, rules: Rules
) -> tuple[Tensor | None, Tensor]:
    """Return the values that go through the momentum (G, n, R), None without, and what the errors are solved from."""
    k, v, literal = made.k, made.v, rules.rule == "dgd_l2"
    if rules.rule == "hebbian":
        value = targets(v, anchor, rules)
        return (None, value) if begin.Z is None else (value, torch.zeros_like(value))
    if anchor is begin.S and rules.target_bound is None and begin.Z is None:  # one product with S for v and k together
        both = v - k if literal else v
        own = pad(v, (anchor.shape[-2] - v.shape[-1], 0)) if rules.own_value else None
        if left.S is None:
            return None, _plus(own, both - k, begin.S)
        part = left.S[..., :-1, :] * k
        right = _plus(own, both - part, begin.S)
        return None, right if begin.origin is None else _plus(right, part - k, begin.origin)
    value = targets(v, anchor, rules)
    value = value - k @ anchor.mT if literal else value
    answer = answer_before(begin, k, left)
    return (None, value - answer) if begin.Z is None else (value, -answer)


def _plus(total: Tensor | None, x: Tensor, S: Tensor) -> Tensor:
    return x @ S.mT if total is None else torch.baddbmm(total, x, S.mT)


def _read_all(readings: list[Reading], sizes: list[int]) -> Tensor:
    """Return y (G, T, d): all neighbouring segments of one size are read at once."""
    answers = []
    for _, places in runs(sizes):
        begin, q, k, errors, values, left = _stacked([readings[place] for place in places])
        y = read(begin, q, k, errors, values, left)  # (N, G, n, d)
        answers.append(y.transpose(0, 1).flatten(1, 2))
    return answers[0] if len(answers) == 1 else torch.cat(answers, 1)


def _stacked(parts: Sequence[Any]) -> Any:
    """Return a tuple of tensors, nested as each of the parts, with the parts stacked along a new first axis."""
    first = parts[0]
    if first is None or isinstance(first, Tensor):
        return None if first is None else torch.stack(list(parts))
    return type(first)(*(_stacked(same) for same in zip(*parts, strict=True)))


def replaced(old: Tensor, new: list[tuple[slice, Tensor]], axis: int = -2) -> Tensor:
    """Return `old` with some of its rows replaced.

    Args     old: (..., R, ...). new: the rows, in their order, and what to put there. axis: where the rows are.
    """
    if len(new) == 1 and new[0][1].shape == old.shape:
        return new[0][1]
    parts, at = [], 0
    for rows, part in new:
        parts += [old.narrow(axis, at, rows.start - at), part]
        at = rows.stop
    return torch.cat([*parts, old.narrow(axis, at, old.shape[axis] - at)], axis)
