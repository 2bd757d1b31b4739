"""Optimizers and sequence models write with the same rules: the same numbers by both routes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from nlcore.optimizers import DeltaMomentum, Momentum
from nlcore.sequence import delta_rule, linear_attention, titans_memory

T, OUT, IN = 9, 3, 4


def as_tokens(x: Tensor) -> Tensor:
    """(T, d) -> (B, H, T, d) with one stream and one head."""
    return x.double()[None, None]


@pytest.mark.parametrize("chunk_size", [None, 4])
def test_momentum_is_linear_attention_over_what_a_layer_saw(chunk_size: int | None) -> None:
    """The gradient of a linear layer is (dL/dy) x^T: momentum has written keys x and values dL/dy, fading by beta."""
    layer = nn.Linear(IN, OUT, bias=False).double()
    optimizer = Momentum(layer.parameters(), lr=0.05, beta=0.8)
    keys, values = torch.randn(T, IN).double(), []
    for x in keys:
        optimizer.zero_grad()
        y = layer(x)
        y.retain_grad()
        (0.5 * y.square().sum() + y.sin().sum()).backward()
        optimizer.step()
        assert y.grad is not None
        values.append(y.grad)
    k, v = as_tokens(keys), as_tokens(torch.stack(values))
    _, state = linear_attention(k, k, v, 1.0, 0.8, chunk_size=chunk_size)
    torch.testing.assert_close(state.M[0, 0], optimizer.state[layer.weight]["m"], rtol=0, atol=1e-12)


def gradients_through(optimizer: DeltaMomentum, weight: nn.Parameter, gradients: Tensor) -> Tensor:
    for gradient in gradients:
        weight.grad = gradient.clone()
        optimizer.step()
    return optimizer.state[weight]["m"]


@pytest.mark.parametrize("key", ["unit", "gradient"])
@pytest.mark.parametrize("chunk_size", [None, 4])
def test_delta_momentum_of_a_vector_is_the_delta_rule(key: str, chunk_size: int | None) -> None:
    """A gradient g is the key, its length (or 1) over c the value: c (v - m k) k^T is g less what m answers to it."""
    c, beta = 0.05, 0.9
    weight, gradients = nn.Parameter(torch.randn(IN).double()), torch.randn(T, IN).double()
    optimizer = DeltaMomentum([weight], lr=0.1, beta=beta, erase=c, key=key)
    m = gradients_through(optimizer, weight, gradients)
    size = gradients.norm(dim=-1, keepdim=True) if key == "unit" else torch.ones(T, 1).double()
    k, v = as_tokens(gradients / size), as_tokens(size / c)
    _, state = delta_rule(k, k, v, c, beta, chunk_size=chunk_size)
    torch.testing.assert_close(state.M[0, 0, 0], m, rtol=0, atol=1e-12)


@pytest.mark.parametrize("chunk_size", [None, 4])
def test_delta_momentum_of_a_matrix_reads_its_rows_as_one_chunk(chunk_size: int | None) -> None:
    """All rows of a gradient correct the same m: a Titans memory whose gradients are taken once a matrix.

    Row r has the value e_r / c; beta fades once a matrix, at its first row; there is no momentum on top.
    """
    c, beta = 0.02, 0.9
    weight, gradients = nn.Parameter(torch.randn(OUT, IN).double()), torch.randn(T, OUT, IN).double()
    optimizer = DeltaMomentum([weight], lr=0.1, beta=beta, erase=c, key="gradient")
    m = gradients_through(optimizer, weight, gradients)
    k, v = as_tokens(gradients.flatten(0, 1)), as_tokens(torch.eye(OUT).double().repeat(T, 1) / c)
    retain = torch.tensor([beta] + [1.0] * (OUT - 1), dtype=torch.float64).repeat(T)[None, None]
    _, state = titans_memory(k, k, v, c, 0.0, retain, gradient_period=OUT, lr_bound=None, chunk_size=chunk_size)
    torch.testing.assert_close(state.M[0, 0], m, rtol=0, atol=1e-12)
