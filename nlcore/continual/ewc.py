r"""Elastic weight consolidation: after a task, hold each weight as firmly as it mattered to the task.

    loss of the new task + lambda / 2 sum over old tasks t, weights i of F_ti (W_i - W_ti)^2

F is the diagonal of the Fisher information: how much the log-probabilities move when a weight does. The average over
labels can be taken in two ways, which differ as soon as the model is not perfect:

    y not given    the model's own predictions    F_i = 1/N sum_n sum_k p(k | x_n) (d log p(k | x_n) / d W_i)^2
    y given        the labels                     F_i = 1/N sum_n (d log p(y_n | x_n) / d W_i)^2

The first is the Fisher information, computed exactly over the K classes instead of with drawn ones; it is the default.
The second is called the empirical Fisher; it costs one backward pass an example instead of K.

Symbols   W weights, W_t where task t left them; lambda = strength; p(k | x) softmax of the outputs.
Source    Kirkpatrick et al. 2017, Overcoming catastrophic forgetting, Eq. 3; Schwarz et al. 2018, Progress & compress
          (online); Kunstner et al. 2019 (the two Fishers).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev, vmap

from nlcore.optimizers.checks import check_not_negative

Weights = dict[str, Tensor]


def fisher(
    model: nn.Module, x: Tensor, y: Tensor | None = None, *, allowed: Tensor | None = None, chunk: int = 32
) -> Weights:
    """Return the diagonal of the Fisher information of a classifier, one number a weight.

    The model is in `eval` mode meanwhile; only weights that require a gradient are looked at. Runs side by side in one
    model, with outputs (..., N, K), each get their own numbers, as if they were alone.

    Args     model: outputs (..., N, K) for inputs (N, ...). x: (N, ...), of the old task. y: (N,) labels; None for
             the model's own predictions. allowed: (K,) booleans, the outputs that may answer; None for all.
             chunk: examples at a time; it changes the memory needed, not the result.
    Returns  name of the weights -> tensor of their shape, >= 0.
    Raises   ValueError if there is no example or y does not fit x.
    Source   Kirkpatrick et al. 2017; see the head of this file for the two formulas.
    """
    if len(x) == 0 or y is not None and len(y) != len(x):
        given = f"got {len(x)} and {None if y is None else len(y)}"
        raise ValueError(f"expected at least 1 example, and y as long as x or None, {given}")
    weights = {name: W.detach() for name, W in model.named_parameters() if W.requires_grad}
    total = {name: torch.zeros_like(W) for name, W in weights.items()}
    training = model.training
    model.eval()
    try:
        for rows in torch.arange(len(x), device=x.device).split(chunk):
            for name, squares in _squares(model, weights, x[rows], None if y is None else y[rows], allowed).items():
                total[name] += squares / len(x)
    finally:
        model.train(training)
    return total


def _squares(model: nn.Module, weights: Weights, x: Tensor, y: Tensor | None, allowed: Tensor | None) -> Weights:
    """Return the sum over examples of the squared gradients, averaged over labels."""

    def signals(weights: Weights, x: Tensor, y: Tensor | None) -> Tensor:
        """Return numbers whose squared gradients add up to F for one example."""
        outputs = functional_call(model, weights, (x.unsqueeze(0),))  # (..., 1, K)
        if allowed is not None:
            outputs = outputs.masked_fill(~allowed, -math.inf)
        log_p = outputs.log_softmax(-1)
        finite = log_p if allowed is None else log_p.masked_fill(~allowed, 0.0)
        own = finite * log_p.exp().sqrt().detach()  # (sqrt(p) d log p)^2 = p (d log p)^2
        each = own if y is None else finite.index_select(-1, y.reshape(1))  # (..., 1, K) or (..., 1, 1)
        return each.flatten(0, -2).sum(0)  # runs side by side share no weight: their sum keeps them apart

    slopes = vmap(jacrev(signals), in_dims=(None, 0, None if y is None else 0))(weights, x, y)
    return {name: slope.square().sum((0, 1)) for name, slope in slopes.items()}  # over examples and labels


class EWC:
    """Elastic weight consolidation: a penalty to add to the loss.

        loss = cross_entropy(model(x), y) + ewc.penalty()        # at each step
        ewc.remember(x_old)                                      # after each task

    Gradient descent on the penalty stays stable only while lr * `stiffness()` < 2. With a stronger hold, leave it out
    of the loss and call `ewc.pull(lr)` after each `optimizer.step()`: the same penalty, which then cannot overshoot.

    Args     model: the classifier that learns. strength: lambda >= 0. retain: None keeps every old task with its own
             weights (Kirkpatrick); a number in [0, 1] keeps one running importance, F <- retain F + F_new, around the
             weights after the newest task (online, Schwarz).
    Raises   ValueError or TypeError for a value outside its range.
    Source   Kirkpatrick et al. 2017, Eq. 3; Schwarz et al. 2018, section 3.
    """

    def __init__(self, model: nn.Module, strength: float = 100.0, retain: float | None = None) -> None:
        self.model = model
        self.strength = check_not_negative("strength", strength)
        self.retain = None if retain is None else check_not_negative("retain", retain)
        if retain is not None and retain > 1.0:
            raise ValueError(
                f"retain must lie in [0, 1], the part of the old importance kept at a new task; got {retain}"
            )
        self._importance: list[Weights] = []
        self._anchor: list[Weights] = []

    @property
    def held(self) -> int:
        """How many sets of old weights are held: one for each task remembered, or one in all if `retain` is given."""
        return len(self._anchor)

    def remember(self, x: Tensor, y: Tensor | None = None, *, allowed: Tensor | None = None) -> None:
        """Note the weights as they are now, and how much each matters for these examples.

        Args     x, y, allowed: as in `fisher`.
        """
        importance = fisher(self.model, x, y, allowed=allowed)
        if self.retain is not None and self._importance:
            old = self._importance.pop()
            self._anchor.pop()
            importance = {name: self.retain * old[name] + new for name, new in importance.items()}
        self._importance.append(importance)
        self._anchor.append({name: W.clone() for name, W in self._weights().items()})

    def penalty(self) -> Tensor:
        """Return lambda / 2 sum F (W - W_t)^2, a scalar with a gradient; 0 before the first `remember`."""
        now = dict(self.model.named_parameters())
        total = next(iter(now.values())).new_zeros(())
        for importance, anchor in zip(self._importance, self._anchor, strict=True):
            for name, F in importance.items():
                total = total + (F * (now[name] - anchor[name]).square()).sum()
        return 0.5 * self.strength * total

    @torch.no_grad()
    def pull(self, lr: float) -> None:
        """Move the weights W to the exact minimum over W' of |W' - W|^2 / (2 lr) + penalty(W').

            W <- (W + lr lambda sum_t F_t W_t) / (1 + lr lambda sum_t F_t)

        Args     lr: step size >= 0, as a rule that of the optimizer.
        Raises   ValueError or TypeError if lr is no finite number >= 0.
        """
        reach = check_not_negative("lr", lr) * self.strength
        now = dict(self.model.named_parameters())
        for name in self._importance[0] if self._importance else ():
            hold = sum(F[name] for F in self._importance)
            toward = sum(F[name] * old[name] for F, old in zip(self._importance, self._anchor, strict=True))
            now[name].add_(reach * toward).div_(1.0 + reach * hold)

    def stiffness(self) -> float:
        """Return the largest curvature of the penalty, lambda max_i sum_t F_ti; 0 before the first `remember`."""
        sums = [sum(F[name] for F in self._importance) for name in (self._importance[0] if self._importance else ())]
        return self.strength * max((float(torch.as_tensor(total).max()) for total in sums), default=0.0)

    def state_dict(self) -> dict[str, Any]:
        """Return what was noted after the old tasks; the settings stay with the object."""
        copies = ({name: W.clone() for name, W in weights.items()} for weights in self._importance + self._anchor)
        all_weights = list(copies)
        return {"importance": all_weights[: self.held], "anchor": all_weights[self.held :]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state.

        Raises   ValueError if it belongs to a model with other weights.
        """
        own = {name: W.shape for name, W in self._weights().items()}
        for weights in (*state["importance"], *state["anchor"]):
            saved = {name: W.shape for name, W in weights.items()}
            if saved != own:
                raise ValueError(f"the saved state is of a model with the weights {saved}, this one has {own}")
        self._importance, self._anchor = (
            [{name: W.clone() for name, W in weights.items()} for weights in state[part]]
            for part in ("importance", "anchor")
        )

    def _weights(self) -> Weights:
        return {name: W.detach() for name, W in self.model.named_parameters() if W.requires_grad}
