"""A small memory that is right, and ways to break it, so that the probes can be seen to catch each."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

WIDTH, D = 6, 2


class Hidden(torch.autograd.Function):
    """The identity in the form that torch.func cannot see through."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor) -> Tensor:
        return weight.view_as(weight)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient


class Toy(nn.Module):
    """A decaying delta rule whose keys see two tokens; `fault` breaks it in one way.

    The state is (memory (B, D, D), last token (B, WIDTH), slow memory, tokens), the slow one a copy of the memory taken
    every fourth token.
    """

    def __init__(self, dtype: torch.dtype, fault: str = "") -> None:
        super().__init__()
        self.fault = fault
        self.mix = nn.Parameter(torch.randn(2, WIDTH, dtype=dtype))
        self.decay = nn.Parameter(torch.tensor(2.0, dtype=dtype))
        self.spare = nn.Parameter(torch.ones(D, dtype=dtype))

    def forward(self, x: Tensor, state: Any = None, lengths: Tensor | None = None) -> tuple[Tensor, Any]:
        fault, dtype, x = self.fault, x.dtype, x.float() if x.dtype is torch.bfloat16 else x
        if fault == "asks python for a number":
            x = x * (1.0 if x.sum().item() < float("inf") else 0.0)
        if not x.shape[1]:
            return x[..., :D], state
        M, last, slow, tokens = state or (x.new_zeros(len(x), D, D), torch.zeros_like(x[:, 0]), x.new_zeros(1), 0)
        if fault == "forgets the last token of a call":
            last = torch.zeros_like(last)
        before, line = last, []
        for token in x.unbind(1):
            line.append(token * self.mix[0].to(x.dtype) + before * self.mix[1].to(x.dtype))
            before = token
        mixed = torch.stack(line, 1)
        if fault == "centres the convolution":
            mixed = mixed + 0.1 * torch.cat([mixed[:, 1:], mixed[:, :1]], 1)
        if fault == "normalises by the whole stream":
            mixed = mixed / (1 + mixed.abs().mean(1, keepdim=True))
        answers = []
        for t, token in enumerate(mixed.unbind(1)):
            live = x.new_ones(len(x), 1, 1) if lengths is None else (t < lengths).to(x.dtype)[:, None, None]
            q, k, v = token.split(D, -1)
            M_after = self.write(M, self.unit(k), v)
            M = M_after if fault == "writes padding" else torch.where(live > 0, M_after, M)
            if fault == "shares one memory in the batch":
                M = M.mean(0, keepdim=True).expand_as(M)
            if fault == "cuts the history":
                M = M.detach()
            last = torch.where(live[:, :, 0] > 0, x[:, t], last)
            tokens += 1
            if tokens % (2 if fault == "is too fast" else 4) == 0:
                slow = M
            y = (M @ self.unit(q).unsqueeze(-1)).squeeze(-1) * self.spared(dtype)
            answers.append(y * live[:, :, 0])
        y = torch.stack(answers, 1)
        return y if fault == "answers in float32" else y.to(dtype), (M, last, slow, tokens)

    def write(self, M: Tensor, k: Tensor, v: Tensor) -> Tensor:
        error = v - (M @ k.unsqueeze(-1)).squeeze(-1)
        if self.fault == "adds without looking":
            error = v
        if self.fault == "steps too far":
            error = 2.5 * error
        return (1 - 0.01 * self.decay.to(M.dtype).sigmoid()) * M + error.unsqueeze(-1) * k.unsqueeze(-2)

    def unit(self, k: Tensor) -> Tensor:
        least = 0.0 if self.fault == "divides by zero" else 1e-6
        if self.fault == "overflows":
            k = k * (k.square().square().sum(-1, keepdim=True).square() + 1.0)
        return k * (k.square().sum(-1, keepdim=True) + least).rsqrt()

    def spared(self, dtype: torch.dtype) -> Tensor:
        weight = self.spare.float() if dtype is torch.bfloat16 else self.spare
        if self.fault == "hides in a function of the old kind":
            weight = Hidden.apply(weight)
        return weight.detach() if self.fault == "leaves out a parameter" else weight
