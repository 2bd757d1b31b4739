r"""A stretch read in first order: the outer loop's gradient, by hand, from the last piece back to the first.

    W_j = start + left_j (W_{j-1} - start) - eta step_j           j = 1 .. N, one update each; the steps are constants

For the outer loop the steps are constants, so only this is left to differentiate, with dW_j from what piece j read:

    A_j         = dW_j + left_{j+1} A_{j+1}                       what reaches the weights after update j
    d keep      = sum_j <A_j, W_{j-1} - start>
    d log eta   = sum_j <A_j, (W_j - start) - left_j (W_{j-1} - start)>        as that difference is - eta step_j
    d start     = sum_j dW_j                                      d learned = left_1 A_1, for what was learned before

Everything that was computed to learn is used again, and the weights of one piece at a time are in the cache.

Source    derived here; how far gradients flow back is left open in the paper (Fig. 5 has a length for each level).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from nlcore.hope.level import FastWeights, Seen, bend_back


class Piece(NamedTuple):
    """Some tokens that were read with the same weights.

    Args     W: the weights. read: (B, 1, 1), for the update before them: true for a stream that had pairs to learn
             from; None without an update. seen: the tokens.
    """

    W: FastWeights
    read: Tensor | None
    seen: Seen


class Record:
    """What a stretch leaves for its gradient.

    Args     learn: (level, x, a, state, lesson) -> y, the state after it, and the pieces.
    """

    def __init__(self, learn: Callable[..., Any]) -> None:
        self.learn = learn
        self.pieces: list[Piece] = []
        self.after: Any = None


class FirstOrder(torch.autograd.Function):
    """(record, (level, state, lesson), W1, W2, learned W1, learned W2, log eta, keep, x, a) -> (y, ...).

    What follows y is what is learned, if there was an update. The second input is taken as constant. Learned is None
    for nothing.
    """

    @staticmethod
    def forward(record: Record, constants: Any, *inputs: Any) -> Any:
        """Read and learn; fill the record."""
        level, state, lesson = constants
        W1, W2, learned1, learned2, log_lr, keep, x, a = inputs
        level = level._replace(start=FastWeights(W1, W2), log_lr=log_lr, keep=keep)
        state = state._replace(learned=None if learned1 is None else FastWeights(learned1, learned2))
        y, after, pieces = record.learn(level, x, a, state, lesson)
        record.after = after._replace(learned=None)  # what is returned must not be kept: its graph holds the record
        record.pieces = [piece._replace(seen=piece.seen._replace(y=x[:, :0])) for piece in pieces]
        return (y, *after.learned) if any(piece.read is not None for piece in pieces) else (y,)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        """Keep the record and the inputs."""
        ctx.record, _, *tensors = inputs
        ctx.save_for_backward(*tensors)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, dy: Tensor | None, *d_learned: Tensor | None) -> Any:
        """Return the gradients, see above."""
        W1, W2, learned1, learned2, _, keep, x, a = ctx.saved_tensors
        start, pieces = FastWeights(W1, W2), ctx.record.pieces
        first = start if learned1 is None else start.plus(FastWeights(learned1, learned2))
        dy = torch.zeros_like(x) if dy is None else dy
        reach: list[Tensor | None] = list(d_learned) if d_learned else [None, None]
        numbers = torch.zeros_like(keep), torch.zeros_like(keep)
        dys = dy.split([piece.seen.z.shape[1] for piece in pieces], 1)
        dz = [bend_back(part @ piece.W.W2, piece.seen.z) for part, piece in zip(dys, pieces, strict=True)]
        for j, piece in reversed(list(enumerate(pieces))):
            if piece.W.W1.ndim == 2:  # nothing is learned yet
                continue
            rows, columns = (dz[j], dys[j]), (piece.seen.a, piece.seen.h)
            reach = [_plus(*each) for each in zip(reach, rows, columns, strict=True)]
            if piece.read is not None:
                reach, more = _before_update(reach, piece, pieces[j - 1].W if j else first, start, keep)
                numbers = numbers[0] + more[0], numbers[1] + more[1]
        da = torch.cat([part @ piece.W.W1 for part, piece in zip(dz, pieces, strict=True)], 1)
        h = torch.cat([piece.seen.h for piece in pieces], 1)
        d_start = torch.cat(dz, 1).flatten(0, 1).mT @ a.flatten(0, 1), dy.flatten(0, 1).mT @ h.flatten(0, 1)
        return None, None, *d_start, *([None, None] if learned1 is None else reach), *numbers, dy, da


def _plus(total: Tensor | None, rows: Tensor, columns: Tensor) -> Tensor:
    """Return total + rows^T columns, (B, r, c), for rows (B, n, r) and columns (B, n, c)."""
    return rows.mT @ columns if total is None else torch.baddbmm(total, rows.mT, columns)


def _before_update(
    reach: Sequence[Tensor | None], piece: Piece, before: FastWeights, start: FastWeights, keep: Tensor
) -> tuple[list[Tensor | None], tuple[Tensor, Tensor]]:
    """Return what reaches the weights before an update, and the parts of d log eta and d keep.

    Args     reach: A_j for both matrices. piece: the first one after it. before: the weights before it.
             start: where the stream began. keep: one number.
    """
    assert piece.read is not None
    left = torch.where(piece.read, keep, 1.0)
    d_log_lr = _products(reach, piece.W, start)
    if before.W1.ndim == 2:  # nothing was learned yet
        return [left * A for A in reach if A is not None], (d_log_lr.sum(), torch.zeros_like(keep))
    d_left = _products(reach, before, start)
    numbers = (d_log_lr - left * d_left).sum(), torch.where(piece.read, d_left, 0.0).sum()
    return [left * A for A in reach if A is not None], numbers


def _products(reach: Sequence[Tensor | None], W: FastWeights, start: FastWeights) -> Tensor:
    """Return the inner product of what reaches both matrices with W - start, for each stream, (B, 1, 1)."""
    parts = []
    for A, now, begin in zip(reach, W, start, strict=True):
        assert A is not None
        parts.append((A * (now - begin)).sum((1, 2), keepdim=True))
    return parts[0] + parts[1]
