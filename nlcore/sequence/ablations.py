"""Close a part of a trained model for a while, to see what that part did.

    frozen              every learning rate is 0: nothing is written into any memory
    only_memories       of a self-modifying layer only the memory is rewritten; how it makes k, v, lr and retain stays

Source    the comparison with frozen models is ours; which boxes are rewritten: Nested Learning, Table 6 ("w/o").
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn

from nlcore.sequence.self_modifying import SelfModifyingTitans

CLOSED = -1e4  # the sigmoid of it is 0 in every dtype


@contextmanager
def frozen(model: nn.Module) -> Iterator[bool]:
    """Write nothing into the memories of a model: every learning rate that a token gives becomes 0.

    Args     model: any module; its layers with a gate for lr are closed.
    Returns  a context; its value says whether there was a gate to close.
    """
    biases = [bias for part in model.modules() if (bias := _lr_bias(part)) is not None]
    before = [bias.detach().clone() for bias in biases]
    try:
        with torch.no_grad():
            for bias in biases:
                bias.fill_(CLOSED)
        yield bool(biases)
    finally:
        with torch.no_grad():
            for bias, old in zip(biases, before, strict=True):
                bias.copy_(old)


@contextmanager
def only_memories(model: nn.Module) -> Iterator[bool]:
    """Let self-modifying layers rewrite their memory and no other box.

    Args     model: any module.
    Returns  a context; its value says whether there was such a layer.
    """
    layers = [part for part in model.modules() if isinstance(part, SelfModifyingTitans)]
    before = [layer.rules for layer in layers]
    try:
        for layer in layers:
            layer.rules = replace(layer.rules, rewrite=("memory",))
        yield bool(layers)
    finally:
        for layer, rules in zip(layers, before, strict=True):
            layer.rules = rules


def _lr_bias(part: nn.Module) -> Tensor | None:
    """Return what the learning rate of a layer starts from, if it has one of its own."""
    gate = getattr(part, "lr_gate", None)
    bias = getattr(part, "lr_bias", None) if gate is None else gate.linear.bias
    return bias if isinstance(bias, Tensor) else None
