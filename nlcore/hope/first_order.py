r"""A stretch read in first order: the outer loop's gradient, by hand, from the last piece back to the first.

    W_j = start + left_j (W_{j-1} - start) - eta step_j           j = 1 .. N, one update each; the steps are constants

For the outer loop the steps are constants, so only this is left to differentiate, with dW_j from what piece j read:

    A_j         = dW_j + left_{j+1} A_{j+1}                       what reaches the weights after update j
    d keep      = sum_j <A_j, W_{j-1} - start>
    d log eta   = sum_j <A_j, (W_j - start) - left_j (W_{j-1} - start)>        as that difference is - eta step_j
    d start     = sum_j dW_j                                      d learned = left_1 A_1, for what was learned before

The last sum costs no products of its own: dW_j is what A_j has more than left_{j+1} A_{j+1}, so that A_1, and what of
each other A fades at its update, add up to it. Everything that was computed to learn is used again, and the weights of
one piece at a time are in the cache.

Source    derived here; how far gradients flow back is left open in the paper (Fig. 5 has a length for each level).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from nlcore.hope.level import FastWeights, Seen


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
        dy = torch.zeros_like(x) if dy is None else dy
        lines = zip(pieces, dy.split([piece.seen.h.shape[1] for piece in pieces], 1), strict=True)
        begin = None if learned1 is None else FastWeights(learned1, learned2)
        reach = [None if A is None else A.clone() for A in d_learned or (None, None)]
        d_start = [torch.zeros_like(W) if A is None else -A.sum(0) for W, A in zip(start, reach, strict=True)]
        numbers, now = (torch.zeros_like(keep), torch.zeros_like(keep)), _learned(pieces[-1].W, start)
        das = []
        for j, (piece, dy_j) in reversed(list(enumerate(lines))):
            dz = (dy_j @ piece.W.W2) * piece.seen.slope
            das.append(dz @ piece.W.W1)
            outer = (dz, piece.seen.a), (dy_j, piece.seen.h)
            if now is None:  # the weights are the start
                dW = (rows.flatten(0, 1).mT @ columns.flatten(0, 1) for rows, columns in outer)
                d_start = [total + change for total, change in zip(d_start, dW, strict=True)]
                continue
            A = [_plus(total, *each) for total, each in zip(reach, outer, strict=True)]
            before = _learned(pieces[j - 1].W, start) if j else begin
            if piece.read is not None:
                gone, more = _undo_update(A, now, before, piece.read, keep)
                d_start = [total + change for total, change in zip(d_start, gone, strict=True)]
                numbers = numbers[0] + more[0], numbers[1] + more[1]
            reach, now = [*A], before
        d_start = [total if A is None else total + A.sum(0) for total, A in zip(d_start, reach, strict=True)]
        da = torch.cat(das[::-1], 1)
        return None, None, *d_start, *([None, None] if learned1 is None else reach), *numbers, dy, da


def _learned(W: FastWeights, start: FastWeights) -> FastWeights | None:
    """Return what was learned until now, (B, h, d) and (B, d, h), or None for nothing."""
    return None if W.W1.ndim == 2 else FastWeights(W.W1 - start.W1, W.W2 - start.W2)


def _plus(total: Tensor | None, rows: Tensor, columns: Tensor) -> Tensor:
    """Return total + rows^T columns, (B, r, c), for rows (B, n, r) and columns (B, n, c); in place."""
    return rows.mT @ columns if total is None else total.baddbmm_(rows.mT, columns)


def _undo_update(
    reach: Sequence[Tensor], now: FastWeights, before: FastWeights | None, read: Tensor, keep: Tensor
) -> tuple[list[Tensor], tuple[Tensor, Tensor]]:
    """Let what reaches the weights fade, in place; return what of it is gone, and the parts of d log eta and d keep.

    Args     reach: A_j for both matrices. now, before: what was learned after and before the update; None for nothing.
             read: (B, 1, 1), which streams were updated. keep: one number.
    """
    left = torch.where(read, keep, 1.0)
    fades = (1.0 - left).flatten()
    gone = [(fades @ A.flatten(1)).unflatten(0, A.shape[1:]) for A in reach]
    d_log_lr, d_left = _products(reach, now), None if before is None else _products(reach, before)
    for A in reach:
        A.mul_(left)
    if d_left is None:
        return gone, (d_log_lr.sum(), torch.zeros_like(keep))
    return gone, ((d_log_lr - left * d_left).sum(), torch.where(read, d_left, 0.0).sum())


def _products(reach: Sequence[Tensor], learned: FastWeights) -> Tensor:
    """Return the inner product of what reaches both matrices with what was learned, for each stream, (B, 1, 1)."""
    parts = [(A * change).sum((1, 2), keepdim=True) for A, change in zip(reach, learned, strict=True)]
    return parts[0] + parts[1]
