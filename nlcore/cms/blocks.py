"""One network, but every item of a batch has its own weights for it.

A level learns from the stream it reads, so two streams in one batch soon need different weights. All weights of a
network are kept in one row; a batch of rows (B, P) is cut into the matrices (B, out, in) that the layers need.

Symbols   B items in a batch, n tokens read at once, P numbers in all weights of a block.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap


def mlp(
    dim: int,
    hidden: int,
    *,
    norm: bool = False,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> nn.Sequential:
    """Return a network of two layers with a GELU between them, dim -> hidden -> dim, with torch's usual start.

    The GELU is the one made from tanh: for a few tokens at a time the exact one takes many times longer in float32.

    Args     dim, hidden: widths, at least 1. norm: normalise each token first (layer norm without weights).
             dtype, device: of the weights.
    """
    first = [nn.LayerNorm(dim, elementwise_affine=False)] if norm else []
    layers = nn.Linear(dim, hidden, dtype=dtype, device=device), nn.Linear(hidden, dim, dtype=dtype, device=device)
    return nn.Sequential(*first, layers[0], nn.GELU(approximate="tanh"), layers[1])


def row_of_weights(block: nn.Module) -> Tensor:
    """Return all weights of `block` in one row, shape (P,); gradients flow back into the weights.

    Raises   ValueError if the block has no weights, or uses one tensor twice (its copies would drift apart).
    """
    named = list(block.named_parameters(remove_duplicate=False))
    if not named:
        raise ValueError(f"a level learns by changing weights, but this block has none: {block}")
    if len({id(weight) for _, weight in named}) < len(named):
        raise ValueError("two layers of a block share their weights: give each layer its own")
    return torch.cat([weight.reshape(-1) for _, weight in named])


def read_block(block: nn.Module, rows: Tensor, x: Tensor) -> Tensor:
    """Return what `block` answers when item b of the batch uses the weights in row b.

    Args     block: any network (n, d) -> (n, d') that treats tokens alike. rows: (B, P), each row in the order of
             `row_of_weights`. x: (B, n, d).
    Returns  (B, n, d').
    """
    weights = list(block.parameters())
    parts = rows.split([weight.numel() for weight in weights], dim=-1)
    own = (part.reshape(-1, *weight.shape) for part, weight in zip(parts, weights, strict=True))
    return _run(block, own, x)


def _run(module: nn.Module, weights: Iterator[Tensor], x: Tensor) -> Tensor:
    """Run a chain of layers by batched products; anything else with weights goes through `vmap`, slower but general.

    Every layer takes its weights (B, ...) from the iterator, in the order of `module.parameters()`.
    """
    if type(module) is nn.Sequential:
        for layer in module:
            x = _run(layer, weights, x)
        return x
    if type(module) is nn.Linear:
        matrix = next(weights).mT  # (B, in, out)
        return x @ matrix if module.bias is None else torch.baddbmm(next(weights).unsqueeze(1), x, matrix)
    if next(module.parameters(), None) is None:
        return module(x)
    own = {name: next(weights) for name, _ in module.named_parameters()}
    return vmap(lambda one, item: functional_call(module, one, (item,)))(own, x)
