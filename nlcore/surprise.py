r"""Surprise: what a layer of a network stores under each of its inputs.

A layer answers z = W x. The gradient of the loss with respect to that answer,

    u = dL/dz                                                        (the local surprise signal)

says how the answer would have to change to make the loss larger. One step of gradient descent on one example writes
-u under the key x (Eq. 8), so a trained layer is the sum of everything that was written into it:

    W_T = W_0 - eta sum_t u_t x_t^T          and it answers a query q with
    W_T q = W_0 q - eta sum_t (x_t . q) u_t

Symbols   W weights (d_out, d_in); x key (d_in,); z answer (d_out,); u surprise (d_out,); eta = lr the step size.
Source    Behrouz et al. 2025, Nested Learning, sections 3.1 and 4.1, Eq. 8, 9, 29-31.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


def local_surprise(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the surprise of each answer under the cross-entropy: softmax(logits) - onehot(label).

    Args     logits: (..., classes) floating point. labels: (...) class numbers, int64.
    Returns  u, the shape of logits: the gradient of the summed cross-entropy with respect to the logits. Its entries
             add up to 0; its length lies between 0 and the square root of 2.
    Raises   ValueError if the shapes do not fit or a label is no class; TypeError if the labels are not integers.
    Source   the local surprise signal of section 3.1.
    """
    _check_labels(logits, labels)
    u = torch.softmax(logits, -1)
    return u.scatter_add(-1, labels.unsqueeze(-1), torch.full_like(u[..., :1], -1.0))


def _check_labels(logits: Tensor, labels: Tensor) -> None:
    if labels.is_floating_point() or labels.dtype == torch.bool:
        raise TypeError(f"labels are class numbers (int64), got dtype {labels.dtype}")
    if logits.ndim < 1 or logits.shape[:-1] != labels.shape:
        shapes = f"logits {tuple(logits.shape)} and labels {tuple(labels.shape)}"
        raise ValueError(f"expected logits (..., classes) and one label for each row, got {shapes}")
    if labels.numel() and not 0 <= int(labels.min()) <= int(labels.max()) < logits.shape[-1]:
        given = f"{int(labels.min())} to {int(labels.max())}"
        raise ValueError(f"labels lie between 0 and {logits.shape[-1] - 1}, got {given}")


def votes(keys: Tensor, surprises: Tensor, lr: float, query: Tensor) -> Tensor:
    """Return what each write adds to the answer for `query`: -lr (x_t . q) u_t, one row a write.

    Args     keys: (T, d_in), the inputs that were written under. surprises: (T, d_out). lr: the step size of the
             writes. query: (d_in,).
    Returns  votes, shape (T, d_out); their sum over T is the answer of a memory that started empty.
    Raises   ValueError if the shapes do not fit.
    """
    if keys.ndim != 2 or surprises.ndim != 2 or len(keys) != len(surprises) or keys.shape[1:] != query.shape:
        shapes = ", ".join(str(tuple(part.shape)) for part in (keys, surprises, query))
        raise ValueError(f"expected keys (T, d_in), surprises (T, d_out) and query (d_in,), got {shapes}")
    return -lr * (keys @ query).unsqueeze(-1) * surprises


@dataclass(frozen=True)
class LayerWrite:
    """What one example writes into one linear layer: `-surprise` under `key`.

    `name` of the layer in its model; `key` (..., d_in) the input it saw; `surprise` (..., d_out) the gradient of the
    loss with respect to its answer.
    """

    name: str
    key: Tensor
    surprise: Tensor


def layer_writes(model: nn.Module, x: Tensor, loss: Callable[[Tensor], Tensor]) -> list[LayerWrite]:
    """Run `x` through `model` and return key and surprise of each linear layer, in the order in which they answer.

    A layer that is used twice appears twice. The model and its gradients stay as they are.

    Args     model: any module that holds nn.Linear layers. x: its input. loss: maps the output to one number.
    Returns  one LayerWrite for each answer of a linear layer, detached.
    Raises   ValueError if the model holds no linear layer, or the loss is not one number or does not depend on all
             answers.
    Source   section 4.1, Eq. 29-31.
    """
    seen: list[tuple[str, Tensor, Tensor]] = []
    layers = [(name, module) for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    if not layers:
        raise ValueError(f"{type(model).__name__} holds no nn.Linear layer, so there is no matrix to write into")
    hooks = [module.register_forward_hook(_remember(name, seen)) for name, module in layers]
    try:
        with torch.enable_grad():
            value = loss(model(x))
    finally:
        for hook in hooks:
            hook.remove()
    return _with_surprises(seen, value)


def _remember(name: str, seen: list[tuple[str, Tensor, Tensor]]) -> Callable[..., Tensor]:
    def hook(module: nn.Module, inputs: tuple[Tensor, ...], answer: Tensor) -> Tensor:
        if not answer.requires_grad:
            answer.requires_grad_()  # a frozen layer is surprised, too
        seen.append((name, inputs[0].detach().clone(), answer))
        return answer.clone()  # what follows may work in place, and must not overwrite the answer we keep

    return hook


def _with_surprises(seen: list[tuple[str, Tensor, Tensor]], value: Any) -> list[LayerWrite]:
    if not isinstance(value, Tensor) or value.numel() != 1:
        raise ValueError(f"loss(output) must be one number, got {getattr(value, 'shape', type(value).__name__)}")
    surprises = torch.autograd.grad(value, [answer for _, _, answer in seen], allow_unused=True)
    idle = [name for (name, _, _), u in zip(seen, surprises, strict=True) if u is None]
    if idle:
        raise ValueError(f"the loss does not depend on the answer of layer {', '.join(idle)}")
    return [LayerWrite(name, key, u) for (name, key, _), u in zip(seen, surprises, strict=True)]
