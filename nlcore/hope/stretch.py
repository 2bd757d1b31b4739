r"""A level that reads a stretch of a stream: between two updates all tokens at once.

The pair of a token, its hidden state and the token after it, is complete when that next token has come; so the state
keeps the last hidden state, and an update that falls between two tokens is done when the second has come.

    for every token in turn:  complete the pair of the token before;  update if a period is full;  read

First order: updates are constants for the outer loop, which trains the starts through what is read, and eta and keep
through the sum of updates. Second order: the outer gradient flows through the inner gradients as well.

Symbols   B streams, T tokens, C = period.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from nlcore.hope.first_order import FirstOrder, Piece, Record
from nlcore.hope.level import FastWeights, Pairs, Seen, pairs_of, see, updated
from nlcore.hope.readout import Readout
from nlcore.sequence import saving
from nlcore.sequence.layers.norms import rms
from nlcore.sequence.self_modifying.chunks import segment_sizes


@saving.keeps_stream
class FastLevel(NamedTuple):
    """A level in the middle of a stream.

    Args     learned: what the stream has added to the start, or None for nothing. pairs: of the open period, or None.
             last: (B, d), the input of the last token, whose pair waits for the next one; None before the first.
    """

    learned: FastWeights | None = None
    pairs: Pairs | None = None
    last: Tensor | None = None


class Level(NamedTuple):
    """What a level is made of.

    Args     start: (h, d) and (d, h). scale: (d,), eps: of the norm before the MLP. log_lr, keep: one
             number each. period: C.
    """

    start: FastWeights
    scale: Tensor
    eps: float
    log_lr: Tensor
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
    if not torch.is_grad_enabled() or lesson.second_order:
        return learn(level, x, a, state, lesson)[:2]
    return read_first_order(level, x, a, state, lesson)


def read_first_order(level: Level, x: Tensor, a: Tensor, state: FastLevel, lesson: Lesson) -> tuple[Tensor, FastLevel]:
    """Read and learn without a graph of it; the gradient of the outer loop is worked out by hand (`first_order`)."""
    record = Record(learn)
    learned = state.learned or (None, None)
    keep = torch.as_tensor(level.keep, dtype=x.dtype, device=x.device)
    constants = level, state, lesson
    y, *found = FirstOrder.apply(record, constants, *level.start, *learned, level.log_lr, keep, x, a)
    return y, record.after._replace(learned=FastWeights(*found) if found else state.learned)


def piece_sizes(clock: int, T: int, period: int) -> list[int]:
    """Return the sizes of the pieces into which updates cut the next T tokens."""
    return segment_sizes(clock, T, (period, period))


def learn(
    level: Level, x: Tensor, a: Tensor, state: FastLevel, lesson: Lesson
) -> tuple[Tensor, FastLevel, list[Piece]]:
    """Read and learn piece by piece: what `token_loop` does, all tokens between two updates at once.

    Args     as for `read_level`; a: (B, T, d), the input after the norm.
    Returns  y (B, T, d), the state, and with what each piece was read.
    """
    W, pairs, learned = level.start.plus(state.learned), state.pairs, state.learned
    if state.last is not None:
        waiting = state.last.unsqueeze(1)
        seen = see(W, waiting, level.norm(waiting))
        pairs = _with(pairs, W, seen, lesson.tokens[:, :1], lesson.readout, lesson.first)
    answers, pieces, done, T = [], [], 0, x.shape[1]
    for n in piece_sizes(lesson.clock, T, level.period):
        end, known, read = done + n, min(n, T - 1 - done), None
        if (lesson.clock + done) % level.period == 0 and pairs is not None:
            W, read = updated(W, level.start, pairs, level.log_lr.exp(), level.keep)
            pairs = None
        seen = see(W, x[:, done:end], a[:, done:end])
        pieces.append(Piece(W, read, seen))
        answers.append(seen.y)
        if known:
            token = lesson.tokens[:, done + 1 : done + 1 + known]
            live = None if lesson.live is None else lesson.live[:, done : done + known]
            pairs = _with(pairs, W, seen.first(known), token, lesson.readout, live)
        done = end
    if any(piece.read is not None for piece in pieces):
        learned = FastWeights(W.W1 - level.start.W1, W.W2 - level.start.W2)
    return _joined(answers), FastLevel(learned, pairs, state.last), pieces


def _with(
    pairs: Pairs | None, W: FastWeights, seen: Seen, token: Tensor, readout: Readout, live: Tensor | None
) -> Pairs:
    more = pairs_of(W, seen, *readout.error(seen.y, token), live)
    return more if pairs is None else pairs.and_(more)


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, 1)
