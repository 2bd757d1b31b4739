"""Chains of blocks with periods: a copy is what it would be alone, in torch's own modules and by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from nlcore.continual import StackedChain, accuracies, chain_lifetimes, study
from nlcore.metrics import accuracy_matrix, average_accuracy
from nlcore.sweeps import load_sweep
from nlcore.tasks import digits, permuted_pixels

SETTINGS = {
    "flat": {},
    "periods, sum": {"periods": (1, 2, 8), "reduction": "sum"},
    "periods, mean": {"periods": (8, 2, 1)},
    "rates": {"scales": (1.0, 0.5, 0.0)},
}


class Plain(nn.Module):
    """The same chain in torch's own modules, with the weights of one copy."""

    def __init__(self, model: StackedChain, setting: int, seed: int) -> None:
        super().__init__()
        parts: list[list[Tensor]] = [
            [part[setting, seed].detach() for part in model._weights(level)] for level in range(len(model.levels))
        ]
        self.embed = self.linear(*parts[0][:2])
        blocks = [parts[0][2:], *parts[1:-1]]
        self.blocks = nn.ModuleList(
            nn.Sequential(self.linear(U, u), nn.ReLU(), self.linear(D, d)) for U, u, D, d in blocks
        )
        self.out = self.linear(*parts[-1])

    @staticmethod
    def linear(W: Tensor, bias: Tensor) -> nn.Linear:
        layer = nn.Linear(W.shape[1], W.shape[0], dtype=W.dtype)
        with torch.no_grad():
            layer.weight.copy_(W)
            layer.bias.copy_(bias[0])
        return layer

    def forward(self, x: Tensor) -> Tensor:
        h = self.embed(x)
        for block in self.blocks:
            h = h + block(h)
        return self.out(h)


class Patient(torch.optim.SGD):
    """Gradient descent that waits: the reference, with a plain list of gradients for each weight."""

    def __init__(self, groups: list[dict], mean: bool) -> None:
        super().__init__(groups, lr=0.0)
        self.mean, self.seen = mean, 0

    @torch.no_grad()
    def step(self, closure=None) -> None:
        self.seen += 1
        for group in self.param_groups:
            for W in group["params"]:
                chunk = self.state[W].setdefault("chunk", [])
                chunk.append(W.grad.clone())
                if self.seen % group["period"] == 0:
                    written = torch.stack(chunk).mean(0) if self.mean else torch.stack(chunk).sum(0)
                    W -= group["lr"] * written
                    chunk.clear()


@pytest.mark.parametrize("name", SETTINGS)
def test_a_life_is_that_of_one_plain_network(name: str) -> None:
    settings = SETTINGS[name]
    stream = permuted_pixels(digits(dtype=torch.float64))
    found = chain_lifetimes(stream, [3, 4], [0.02, 0.05], steps=30, **settings)
    plain = Plain(StackedChain(64, stream.outputs, [3, 4], 2, dtype=torch.float64), 1, 0)
    periods, scales = settings.get("periods", (1, 1, 1)), settings.get("scales", (1.0, 1.0, 1.0))
    groups = [
        {"params": list(block.parameters()), "period": period, "lr": 0.05 * scale}
        for block, period, scale in zip(plain.blocks, periods, scales, strict=True)
    ]
    groups[0]["params"] += list(plain.embed.parameters())
    groups.append({"params": list(plain.out.parameters()), "period": 1, "lr": 0.05})
    optimizer = Patient(groups, mean=settings.get("reduction", "mean") == "mean")
    order, rows = torch.Generator().manual_seed(3), []
    for task in stream:
        study(plain, optimizer, task, steps=30, generator=order)
        rows.append(accuracies(plain, stream))
    torch.testing.assert_close(found[1, 0], accuracy_matrix(rows), atol=0.003, rtol=0)


def test_a_copy_that_diverges_does_so_alone() -> None:
    stream = permuted_pixels(digits())
    alone = chain_lifetimes(stream, [0], [0.05], steps=10, reduction="sum", periods=(1, 2, 4))
    both = chain_lifetimes(stream, [0], [0.05, 1e6], steps=10, reduction="sum", periods=(1, 2, 4))
    assert torch.equal(alone[0], both[0])
    assert both[1].max() < 0.5


def test_bad_periods_are_named() -> None:
    with pytest.raises(ValueError, match="one a block"):
        chain_lifetimes(permuted_pixels(digits()), [0], [0.1], periods=(1, 8))


def test_the_record_is_that_of_this_code() -> None:
    record = load_sweep("continuum_on_digits")
    stored = record["results"]["permuted"]["flat"]
    again = average_accuracy(chain_lifetimes(permuted_pixels(digits()), record["seeds"][:2], [stored["rate"]]))[0]
    assert again.tolist() == pytest.approx(stored["all"][:2], abs=0.03)
