r"""A level that reads a stretch of a stream: between two updates all tokens at once.

The pair of a token, its hidden state and the token after it, is complete when that next token has come; so the state
keeps the last hidden state, and an update that falls between two tokens is done when the second has come. What a pair
teaches is worked out when its period is full, with the weights as they are then: until then it was read with the same.

    for every token in turn:  complete the pair of the token before;  update if a period is full;  read

First order: updates are constants for the outer loop, which trains the starts through what is read, and eta and keep
through the sum of updates. Second order: the outer gradient flows through the inner gradients as well.

Symbols   B streams, T tokens, C = period.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import gelu

from nlcore.hope.first_order import FirstOrder, Piece, Record
from nlcore.hope.level import FastWeights, Pairs, Seen, gelu_and_slope, pairs_of, see, updated
from nlcore.hope.readout import Readout
from nlcore.sequence import saving
from nlcore.sequence.compiling import compiled
from nlcore.sequence.layers.norms import rms
from nlcore.sequence.self_modifying.chunks import segment_sizes


@saving.keeps_stream
class Heard(NamedTuple):
    """The pairs of an open period: nothing has to be worked out before the period is full.

    Args     x: (B, m, d), inputs of the level. token: (B, m), what came next. live: (B, m, 1), 0 where nothing did; x
             and token are 0 there too.
    """

    x: Tensor
    token: Tensor
    live: Tensor

    def and_(self, more: Heard) -> Heard:
        """Return these and some more."""
        return Heard(*(torch.cat(parts, 1) for parts in zip(self, more, strict=True)))


@saving.keeps_stream
class FastLevel(NamedTuple):
    """A level in the middle of a stream.

    Args     learned: what the stream has added to the start, or None for nothing. heard: pairs of the open period, or
             None. last: (B, d), the input of the last token, whose pair waits for the next one; None before the first.
    """

    learned: FastWeights | None = None
    heard: Heard | None = None
    last: Tensor | None = None


class Level(NamedTuple):
    """What a level is made of.

    Args     start: (h, d) and (d, h). scale: (d,), eps: of the norm before the MLP. log_lr, keep: one
             number each. period: C. backend: of torch.compile, for what is done with the tokens between two updates;
             None for none.
    """

    start: FastWeights
    scale: Tensor
    eps: float
    log_lr: Tensor
    keep: Tensor | float
    period: int
    backend: str | Callable | None = None

    def norm(self, x: Tensor) -> Tensor:
        """Return (..., d), normalised and scaled."""
        return compiled(scaled_rms, self.backend)(x, self.eps, self.scale)


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
    if lesson is None:
        return compiled(answered, level.backend)(level.start.plus(state.learned), x, level.eps, level.scale), state
    a = level.norm(x)
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
    W, learned, heard, T = level.start.plus(state.learned), state.learned, _heard(state, lesson), x.shape[1]
    backend, pairs, answers, pieces, done, end = level.backend, None, [], [], 0, 0
    for n in piece_sizes(lesson.clock, T, level.period):
        done, end, read = end, end + n, None
        if (lesson.clock + done) % level.period == 0 and not (heard is None and pairs is None):
            pairs = _pairs(level, W, heard, pairs, lesson.readout)
            W, read = compiled(updated, backend)(W, level.start, pairs, level.log_lr.exp(), level.keep)
            heard = pairs = None
        if end == T:
            seen = compiled(see, backend)(W, x[:, done:], a[:, done:])
        else:
            live = None if lesson.live is None else lesson.live[:, done:end]
            token = lesson.tokens[:, done + 1 : end + 1]
            seen, pairs = compiled(taught, backend)(W, x[:, done:end], a[:, done:end], token, lesson.readout, live)
        pieces.append(Piece(W, read, seen))
        answers.append(seen.y)
    if any(piece.read is not None for piece in pieces):
        learned = FastWeights(W.W1 - level.start.W1, W.W2 - level.start.W2)
    if done < T - 1:
        live = x.new_ones(len(x), T - 1 - done, 1) if lesson.live is None else lesson.live[:, done:]
        more = _real(x[:, done:-1], lesson.tokens[:, done + 1 :], live)
        heard = more if heard is None else heard.and_(more)
    return _joined(answers), FastLevel(learned, heard, state.last), pieces


def _heard(state: FastLevel, lesson: Lesson) -> Heard | None:
    """Return the pairs of the open period, with that of the last token, whose next one has come now."""
    if state.last is None:
        return state.heard
    live = state.last.new_ones(len(state.last), 1, 1) if lesson.first is None else lesson.first
    more = _real(state.last.unsqueeze(1), lesson.tokens[:, :1], live)
    return more if state.heard is None else state.heard.and_(more)


def _real(x: Tensor, token: Tensor, live: Tensor) -> Heard:
    """Return pairs for a state: zeros in place of padding, and nothing that holds on to the stretch they came from."""
    there = live > 0
    return Heard(torch.where(there, x, 0.0), torch.where(there.squeeze(-1), token, 0), live.clone())


def _pairs(level: Level, W: FastWeights, heard: Heard | None, pairs: Pairs | None, readout: Readout) -> Pairs:
    """Return all pairs of a period: those of earlier calls, and those of this one."""
    if heard is None:
        assert pairs is not None
        return pairs
    a = scaled_rms(heard.x, level.eps, level.scale)
    earlier = taught(W, heard.x, a, heard.token, readout, heard.live)[1]
    return earlier if pairs is None else earlier.and_(pairs)


def scaled_rms(x: Tensor, eps: float, scale: Tensor) -> Tensor:
    """Return (..., d), normalised and scaled."""
    return rms(x, eps) * scale


def answered(W: FastWeights, x: Tensor, eps: float, scale: Tensor) -> Tensor:
    """Return what an MLP answers to x (B, T, d)."""
    z = scaled_rms(x, eps, scale) @ W.W1.mT
    h = gelu_and_slope(z)[0] if torch.compiler.is_compiling() else gelu(z, approximate="tanh")  # what is faster
    return x + h @ W.W2.mT


def taught(
    W: FastWeights, x: Tensor, a: Tensor, token: Tensor, readout: Readout, live: Tensor | None
) -> tuple[Seen, Pairs]:
    """Read tokens; return what was seen, and their pairs with what came next. Arguments as in `level` and `readout`."""
    seen = see(W, x, a)
    return seen, pairs_of(W, seen, *readout.error(seen.y, token), live)


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, 1)
