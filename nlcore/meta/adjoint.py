"""The gradient of a whole reading with respect to its start, by hand: the same numbers as autograd in half the time.

A reading is run again from its last step to its first. The adjoint of a tensor is the derivative of the loss by it
(written with a bar). A write U' = U - rate * sum_c a_c h_c^T lies between the tokens of a chunk and the next one, so
its adjoint U'bar is all that the tokens of the chunk need to know about everything that came after them:

    a_c bar = -V h_c,   h_c bar = -V^T a_c,   with V = rate * U'bar, held for the whole chunk.

Symbols   as in `nlcore.meta.chain`: N copies in the last axis, d width, L blocks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from nlcore.meta.chain import Chain, Matrices, Start
from nlcore.meta.reading import Step, read, shrink, times, transposed_times


def loss_and_gradients(chain: Chain, start: Start, x: Tensor, y: Tensor, number: int) -> tuple[Tensor, list[Tensor]]:
    """Return the sum over worlds of the mean squared error, and its gradients for `start.parameters()`.

    Args     chain: how it learns. start: one for every world. x: (T, inputs, N). y: (T, 2, N). number: streams a world,
             N = W number.
    """
    begin = start.spread(number)
    with torch.no_grad():
        steps: list[Step] = []
        errors = read(chain, begin, x, y, steps).errors
        scale = 1 / (number * len(x))
        found = _Backwards(chain, begin, scale).run(steps, errors, x)
    tensors, adjoints = zip(*found, strict=True)
    gradients = torch.autograd.grad(tensors, start.parameters(), adjoints, allow_unused=True)
    return scale * errors.square().sum(), [
        torch.zeros_like(parameter) if gradient is None else gradient
        for parameter, gradient in zip(start.parameters(), gradients, strict=True)
    ]


@dataclass
class _Matrix:
    """The adjoints that belong to one fast matrix M of a block, with its start, rate and fade (None without decay)."""

    start: Tensor
    rate: Tensor
    fade: Tensor | None

    def __post_init__(self) -> None:
        self.bar = torch.zeros_like(self.start)  # of M as it is at the step that is run again
        self.start_bar = torch.zeros_like(self.start)
        self.rate_bar = torch.zeros_like(self.rate)  # times the rate
        self.fade_bar = None if self.fade is None else torch.zeros_like(self.fade)
        self.held: Tensor | None = None  # V of the chunk that is run again

    def reset(self) -> None:
        """Run a reset again: what came after it depends on the start alone."""
        self.start_bar += self.bar
        self.bar.zero_()
        self.held = None

    def write(self, before: Tensor) -> None:
        """Run a write again, M' = M + fade (start - M) - rate G."""
        self.held = self.rate * self.bar
        if self.fade is not None and self.fade_bar is not None:
            moved = self.bar * (self.start - before)
            self.fade_bar += moved if self.fade.shape == moved.shape else moved.sum((0, 1), keepdim=True)
            faded = self.fade * self.bar
            self.start_bar += faded
            self.bar -= faded

    def factors(self, a: Tensor, h: Tensor) -> tuple[Tensor, Tensor] | tuple[None, None]:
        """Return the adjoints of the factors a and h of one step's gradient a h^T; None if it was never written."""
        if self.held is None:
            return None, None
        product = self.held * h
        a_bar = product.sum(1).neg_()
        if self.rate_bar.shape == product.shape:
            self.rate_bar.addcmul_(product, a[:, None], value=-1)
        else:
            self.rate_bar += (a * a_bar).sum(0)
        return a_bar, transposed_times(self.held, a).neg_()

    def finish(self) -> list[tuple[Tensor, Tensor]]:
        """Return (tensor, adjoint) of start, rate and fade."""
        found = [(self.start, self.start_bar + self.bar), (self.rate, self.rate_bar / self.rate)]
        return found if self.fade is None or self.fade_bar is None else [*found, (self.fade, self.fade_bar)]


class _Backwards:
    """One run from the last step to the first."""

    def __init__(self, chain: Chain, begin: Start, scale: float) -> None:
        self.chain, self.begin, self.scale = chain, begin, scale
        fades: list[tuple[Tensor, Tensor]] | list[tuple[None, None]]
        fades = begin.decays or [(None, None)] * len(begin.up)
        sides = zip(begin.up, begin.down, begin.rates, fades, strict=True)
        self.blocks = [(_Matrix(U, rates[0], fade[0]), _Matrix(D, rates[1], fade[1])) for U, D, rates, fade in sides]
        self.out_bar = torch.zeros_like(begin.out)

    def run(self, steps: list[Step], errors: Tensor, x: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Return (tensor, adjoint) for all tensors of the start."""
        entering = [self._step(index, steps[index], errors[index]) for index in range(len(steps) - 1, -1, -1)]
        h_bar = torch.stack(entering[::-1])  # (T, d, N)
        into_bar = torch.cat([torch.einsum("tin,tjn->ijn", h_bar, x), h_bar.sum(0)[:, None]], 1)
        found = [(self.begin.into, into_bar), (self.begin.out, self.out_bar)]
        return found + [pair for block in self.blocks for matrix in block for pair in matrix.finish()]

    def _step(self, index: int, step: Step, error: Tensor) -> Tensor:
        """Run one step again and return the adjoint of h_0."""
        self._writes(index + 1, step)
        written = [
            (*up.factors(a, h), *down.factors(b, z))
            for (up, down), (a, b), (h, z) in zip(self.blocks, step.factors, step.seen, strict=True)
        ]
        g_bar, hidden_bars = self._gradients(step, written)
        less = shrink(error, self.chain.cut)
        self.out_bar.addcmul_((less * error)[:, None], g_bar[None])  # g = O^T (e less), less = min(1, cut / |e|)
        bounded_bar = times(self.begin.out, g_bar)
        along = torch.where(less < 1, (error * bounded_bar).sum(0) / error.square().sum(0), 0.0)
        error_bar = less * (bounded_bar - along * error) + 2 * self.scale * error
        self.out_bar.addcmul_(error_bar[:, None], step.end[None])  # e = O h - y
        return self._answer(step, written, hidden_bars, transposed_times(self.begin.out, error_bar))

    def _writes(self, count: int, step: Step) -> None:
        for level, (up, down) in enumerate(self.blocks):
            period, reset = self.chain.periods[level], self.chain.resets[level]
            if math.isinf(period) or count % period:
                continue
            if reset and count % reset == 0:
                up.reset()
                down.reset()
            else:
                up.write(step.up[level])
                down.write(step.down[level])

    def _gradients(self, step: Step, written: list[tuple]) -> tuple[Tensor, Matrices]:
        """Run the inner gradients again: return the adjoints of g at the end of the chain and of the hidden units."""
        below: Tensor | None = None  # the adjoint of g below this block
        total: Tensor | None = None
        hidden_bars = []
        for level, (up, down) in enumerate(self.blocks):
            (a, g), (_, z) = step.factors[level], step.seen[level]
            a_bar, _, b_bar, z_bar = written[level]
            a_bar = torch.zeros_like(a) if a_bar is None else a_bar
            g_bar = torch.zeros_like(g) if b_bar is None else b_bar
            z_bar = torch.zeros_like(z) if z_bar is None else z_bar
            if below is not None and not self.chain.independent:
                a_bar = a_bar + times(step.up[level], below)  # g below = g + U^T a
                up.bar.addcmul_(a[:, None], below[None])
                g_bar = g_bar + below
            slope = 1 - z * z
            back = a / slope.clamp(min=1e-30)  # where the slope is zero it is not needed
            back_bar = a_bar * slope  # a = back (1 - z^2), back = D^T g
            hidden_bars.append(z_bar.addcmul(back * a_bar, z, value=-2))
            down.bar.addcmul_(g[:, None], back_bar[None])
            g_bar = g_bar + times(step.down[level], back_bar)
            total = g_bar if total is None or not self.chain.independent else total + g_bar
            below = g_bar
        return (torch.zeros_like(self.begin.out[0]) if total is None else total), hidden_bars

    def _answer(self, step: Step, written: list[tuple], hidden_bars: Matrices, h_bar: Tensor) -> Tensor:
        """Run the answer again: return the adjoint of h_0, given that of h at the end."""
        first: Tensor = h_bar
        for level in range(len(self.blocks) - 1, -1, -1):
            (up, down), (h, z) = self.blocks[level], step.seen[level]
            z_bar = hidden_bars[level] + transposed_times(step.down[level], h_bar)  # h' = h + D z
            down.bar.addcmul_(h_bar[:, None], z[None])
            p_bar = z_bar.addcmul(z_bar * z, z, value=-1)  # z = tanh(p), p = U h
            up.bar.addcmul_(p_bar[:, None], h[None])
            source = transposed_times(step.up[level], p_bar)
            source = source if written[level][1] is None else source + written[level][1]
            if self.chain.independent:
                first = first + source
            else:
                h_bar = h_bar + source
        return first if self.chain.independent else h_bar
