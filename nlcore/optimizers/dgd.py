r"""Delta gradient descent (DGD): a step on a linear layer that also corrects what the layer answers to its input.

    u = -grad_y L,   W <- argmin_W' mean 1/2 |W' x - u|^2 + 1/(2 eta) |W' - W|^2                     (Eq. 56)
                       = (W - eta G) (I + eta A)^-1,   G = grad_W L,   A = mean of x x^T over the batch
    one example:  W <- W (I - eta' x x^T) - eta' (grad_y L) x^T,   eta' = eta / (1 + eta |x|^2)      (Eq. 57)

Gradient descent is the same with the dot product -<W' x, u> for the first term (Def. 5): `objective` names the two.

What it minimises matters. With the outer loss -<W x, v> the surprise is u = v and DGD is the delta rule: it stores v.
With a squared outer loss u is already an error, v - W x; used as a target it erases the old answer twice, and the layer
settles at v / 2. Notebook 05 shows both.

The step needs the inputs of the layer, which a gradient does not carry. `watch` records them in the forward pass.
"""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import ParamsT

from nlcore.levels import Level
from nlcore.memory import hebbian
from nlcore.optimizers.base import MemoryOptimizer, with_l2
from nlcore.optimizers.checks import check_choice

OBJECTIVES = ("squared", "dot")


class DGD(MemoryOptimizer):
    """Delta gradient descent on the weights of linear layers, gradient descent on everything else.

    The loss should be a mean over examples, as `G` is then the gradient for the mean in Eq. 56. Inputs seen since the
    last step count alike; to accumulate gradients, divide each loss by the number of backward passes, as usual.

    Args     params: parameters or groups of them. lr: step size eta >= 0; no eta makes the correction overshoot.
             model: its `nn.Linear` layers are watched; needed for the objective "squared".
             objective: "squared" (DGD) or "dot" (gradient descent). weight_decay: L2 penalty, >= 0.
    Raises   ValueError for a value outside its range or a missing model, TypeError for a value of the wrong kind;
             in `step`: FloatingPointError for a gradient that is not finite, RuntimeError for one without its inputs.
    Source   Behrouz et al. 2025, Eq. 54-57 and Def. 5, with the exact eta' for inputs of any length.
    Example  optimizer = DGD(model.parameters(), lr=0.1, model=model)
    """

    refuses_non_finite = True

    def __init__(
        self,
        params: ParamsT,
        lr: float = 0.1,
        model: nn.Module | None = None,
        objective: str = "squared",
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "objective": objective, "weight_decay": weight_decay})
        self._watched: dict[int, list[Tensor]] = {}  # id of a weight -> the inputs seen since the last step
        self._hooks: list[torch.utils.hooks.RemovableHandle] = []
        if model is not None:
            self.watch(model)
        elif any(group["objective"] == "squared" for group in self.param_groups):
            raise ValueError(
                "DGD needs the inputs of the layers: pass model=..., for example DGD(net.parameters(), model=net)"
            )

    def check_group(self, group: dict[str, Any]) -> dict[str, Any]:
        """Check all settings."""
        check_choice("objective", group["objective"], OBJECTIVES)
        return super().check_group(group)

    def watch(self, model: nn.Module) -> None:
        """Record the inputs of every `nn.Linear` of `model` whose weight this optimizer moves, until `unwatch`.

        Inputs are recorded only while gradients are on. Call it again on a copied or reloaded optimizer.

        Raises   TypeError if `model` is no module; ValueError if it has no such layer.
        """
        if not isinstance(model, nn.Module):
            raise TypeError(f"model must be an nn.Module, got {type(model).__name__}")
        mine = {id(W) for W in self._weights()}
        layers = [layer for layer in model.modules() if isinstance(layer, nn.Linear) and id(layer.weight) in mine]
        if not layers:
            raise ValueError("no nn.Linear of the model has a weight that this optimizer moves: pass its parameters")
        self.unwatch()
        self._watched = {id(layer.weight): [] for layer in layers}
        self._hooks = [layer.register_forward_pre_hook(_recorder(self)) for layer in layers]

    def unwatch(self) -> None:
        """Stop recording inputs, and forget those that were."""
        for hook in getattr(self, "_hooks", []):
            hook.remove()
        self._hooks, self._watched = [], {}

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear the gradients, and the inputs that belong to them."""
        super().zero_grad(set_to_none)
        self._forget()

    def step(self, closure: Any = None) -> Any:
        """Take one step, see `MemoryOptimizer.step`; then forget the inputs it has used."""
        loss = super().step(closure)
        self._forget()
        return loss

    def check_write(self, W: Tensor, g: Tensor, group: dict[str, Any]) -> None:
        """Raise RuntimeError if the layer of `W` is watched, or should be, and no input was seen."""
        super().check_write(W, g, group)
        if group["objective"] == "dot":
            return
        watched = getattr(self, "_watched", {})
        if not watched or watched.get(id(W)) == []:
            raise RuntimeError(
                f"no input was seen for a weight of shape {tuple(W.shape)}: run the forward pass of the watched model "
                "with gradients on after zero_grad(), or call optimizer.watch(model) on a copied optimizer"
            )

    def update(self, W: Tensor, g: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        """W <- (W - eta G) (I + eta A)^-1 for a watched layer, W <- W - eta g for any other weight."""
        hebbian(W, None, with_l2(g, W, group["weight_decay"]), lr=-group["lr"], out=W)
        if group["objective"] == "squared" and id(W) in self._watched:
            erase_(W, torch.cat(self._watched[id(W)]), group["lr"])

    def _forget(self) -> None:
        for rows in getattr(self, "_watched", {}).values():
            rows.clear()

    def levels(self) -> list[Level]:
        """One part: the weights."""
        return [
            Level("weights W", 1, "inputs -> their surprise, correcting what they answered", numbers=self.numbers())
        ]


def _recorder(optimizer: DGD) -> Any:
    """Return a forward hook that records the inputs of a layer, and does not keep the optimizer alive."""
    seen_by = weakref.ref(optimizer)

    def record(layer: nn.Linear, inputs: tuple[Tensor, ...]) -> None:
        optimizer = seen_by()
        if optimizer is not None and torch.is_grad_enabled() and id(layer.weight) in optimizer._watched:
            optimizer._watched[id(layer.weight)].append(inputs[0].detach().reshape(-1, layer.in_features))

    return record


def erase_(W: Tensor, x: Tensor, lr: float) -> None:
    """W <- W (I + eta A)^-1 with A = x^T x / rows, in place, by the smaller of the two systems of equations.

    Args     W: (out, in). x: (rows, in), the inputs. lr: eta.
    Source   Eq. 56; one row gives W (I - eta' x x^T) of Eq. 57.
    """
    rows, d_in = x.shape
    x = x.to(torch.promote_types(W.dtype, torch.float32))
    V = W.to(x.dtype)
    if rows < d_in:  # I - eta x^T (rows I + eta x x^T)^-1 x, the same matrix
        system = rows * torch.eye(rows, dtype=x.dtype, device=x.device) + lr * (x @ x.mT)
        W.sub_(lr * (V @ torch.cholesky_solve(x, torch.linalg.cholesky(system)).mT) @ x)
    else:
        system = torch.eye(d_in, dtype=x.dtype, device=x.device) + (lr / rows) * (x.mT @ x)
        W.copy_(torch.cholesky_solve(V.mT, torch.linalg.cholesky(system)).mT)
