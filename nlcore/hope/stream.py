r"""A level that reads a stretch of a stream: between two updates all tokens at once.

The pair of a token, its hidden state and the token after it, is complete when that next token has come; so the state
keeps the last hidden state, and an update that falls between two tokens is done when the second has come.

    for every token in turn:  complete the pair of the token before;  update if a period is full;  read

First order: updates are constants for the outer loop, which trains the starts through what is read, and eta and keep
through the sum of updates. So the updates are computed without a graph, and then all is read again at once, with one.
Second order: the outer gradient flows through the inner gradients, and the first reading is the only one.

Symbols   B streams, T tokens, C = period.
"""

from __future__ import annotations

from itertools import groupby
from typing import NamedTuple

import torch
from torch import Tensor

from nlcore.hope.level import FastWeights, Seen, Sums, add_pairs, moved, see, step_of
from nlcore.hope.readout import Readout
from nlcore.sequence import saving
from nlcore.sequence.layers.norms import rms
from nlcore.sequence.self_modifying.chunks import segment_sizes

Update = tuple[FastWeights, Tensor]


@saving.keeps_stream
class FastLevel(NamedTuple):
    """A level in the middle of a stream.

    Args     learned: what the stream has added to the start, or None for nothing. sums: of the open period, or None.
             last: (B, d), the input of the last token, whose pair waits for the next one; None before the first.
    """

    learned: FastWeights | None = None
    sums: Sums | None = None
    last: Tensor | None = None


class Level(NamedTuple):
    """What a level is made of.

    Args     start: (h, d) and (d, h). scale: (d,), eps: of the norm before the MLP. lr, keep: one number each. period: C.
    """

    start: FastWeights
    scale: Tensor
    eps: float
    lr: Tensor | float
    keep: Tensor | float
    period: int

    def norm(self, x: Tensor) -> Tensor:
        """Return (..., d), normalised and scaled."""
        return rms(x, self.eps) * self.scale


class Lesson(NamedTuple):
    """What there is to learn from in a stretch.

    Args     tokens: (B, T), the tokens just read. readout: the end of the model. clock: tokens of the stream before.
             first: (B, 1, 1), 1 where a pair waits and its next token is here; None for everywhere. live: (B, T - 1,
             1), 1 where the next token is real; None for everywhere. second_order: see above.
    """

    tokens: Tensor
    readout: Readout
    clock: int
    first: Tensor | None = None
    live: Tensor | None = None
    second_order: bool = False


def read_level(level: Level, x: Tensor, state: FastLevel, lesson: Lesson | None) -> tuple[Tensor, FastLevel]:
    """Read a stretch and learn from it; without a lesson only read.

    Args     level: its parts. x: (B, T, d), at least one token. state: where the stream is. lesson: see `Lesson`.
    Returns  y (B, T, d), and the state but for `last`, which still is that of before.
    """
    a = level.norm(x)
    if lesson is None:
        return see(level.start.plus(state.learned), x, a).y, state
    graph = torch.is_grad_enabled()
    if not graph or lesson.second_order:
        y, state, _ = learn(level, x, a, state, lesson)
        return y, state
    with torch.no_grad():
        _, after, steps = learn(level, x, a, state, lesson)
    learned, used = state.learned, []
    for update in steps:
        learned = learned if update is None else moved(learned, *update, level.lr, level.keep)
        used.append(learned)
    sizes = piece_sizes(lesson.clock, x.shape[1], level.period)
    return read_pieces(level.start, used, sizes, x, a), after._replace(learned=learned)


def piece_sizes(clock: int, T: int, period: int) -> list[int]:
    """Return the sizes of the pieces into which updates cut the next T tokens."""
    return segment_sizes(clock, T, (period, period))


def learn(
    level: Level, x: Tensor, a: Tensor, state: FastLevel, lesson: Lesson
) -> tuple[Tensor, FastLevel, list[Update | None]]:
    """Read and learn piece by piece: what `token_loop` does, all tokens between two updates at once.

    Args     as for `read_level`; a: (B, T, d), the input after the norm.
    Returns  y (B, T, d), the state, and for each piece the update before it, or None.
    """
    learned, sums = state.learned, state.sums
    updates: list[Update | None] = []
    W = level.start.plus(learned)
    if state.last is not None:
        waiting = state.last.unsqueeze(1)
        seen = see(W, waiting, level.norm(waiting))
        sums = _with(sums, W, seen, lesson.tokens[:, :1], lesson.readout, lesson.first)
    answers, done, T = [], 0, x.shape[1]
    for n in piece_sizes(lesson.clock, T, level.period):
        end, known = done + n, min(done + n, T - 1) - done
        updates.append(None)
        if (lesson.clock + done) % level.period == 0 and sums is not None:
            updates[-1] = step_of(sums, x.shape[-1])
            learned, sums = moved(learned, *updates[-1], level.lr, level.keep), None
            W = level.start.plus(learned)
        seen = see(W, x[:, done:end], a[:, done:end])
        answers.append(seen.y)
        if known:
            token = lesson.tokens[:, done + 1 : done + 1 + known]
            live = None if lesson.live is None else lesson.live[:, done : done + known]
            sums = _with(sums, W, seen.first(known), token, lesson.readout, live)
        done = end
    y = answers[0] if len(answers) == 1 else torch.cat(answers, 1)
    return y, FastLevel(learned, sums, state.last), updates


def _with(sums: Sums | None, W: FastWeights, seen: Seen, token: Tensor, readout: Readout, live: Tensor | None) -> Sums:
    error, bend = readout.error(seen.y, token)
    return add_pairs(sums, W, seen, error, bend, live)


def read_pieces(
    start: FastWeights, learned: list[FastWeights | None], sizes: list[int], x: Tensor, a: Tensor
) -> Tensor:
    """Read pieces, each with its own weights; neighbours of equal size are read together.

    Args     start: (h, d) and (d, h). learned: one a piece, (B, h, d) and (B, d, h), or None for nothing. sizes: tokens
             in each piece. x, a: (B, T, d).
    Returns  y (B, T, d).
    """
    answers, done = [], 0
    for (n, nothing), run in groupby(zip(sizes, learned, strict=True), lambda pair: (pair[0], pair[1] is None)):
        changes = [change for _, change in run]
        part = slice(done, done := done + n * len(changes))
        x_n, a_n = (line[:, part].unflatten(1, (len(changes), n)) for line in (x, a))  # (B, N, n, d)
        W = start
        if not nothing:
            W1, W2 = (torch.stack(list(each), 1) for each in zip(*changes, strict=True))  # type: ignore[arg-type]
            W = start.plus(FastWeights(W1, W2))  # (B, N, h, d)
        answers.append(see(W, x_n, a_n).y.flatten(1, 2))
    return answers[0] if len(answers) == 1 else torch.cat(answers, 1)
