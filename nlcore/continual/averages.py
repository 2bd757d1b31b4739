r"""A continuum of slow copies: averages of one learner's weights, each over its own horizon.

    after each step, for each level l      A_l <- (1 - 1/h_l) A_l + 1/h_l W
    after T steps                          A_l = r^T W_0 + (1 - r) sum_{t=1}^{T} r^(T - t) W_t        with r = 1 - 1/h_l

A level with horizon h holds the last h steps with about 63 % of its weight, 1 - r^h, and what came before fades
(`nlcore.horizon` counts the steps for any other share). It is the Hebbian memory of `nlcore.memory` once more, written
with weights instead of gradients. All levels are written at every step, so by the paper's Def. 2 they have one
frequency; what tells them apart is how far back each remembers. They read the learner and never steer it. This is not
Eq. 71: there each level learns by itself.

Source   Polyak and Juditsky 1992 (averaging); Tarvainen and Valpola 2017 (exponential averages of weights).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nlcore.levels import Level, describe
from nlcore.memory import hebbian


class WeightAverages:
    """Slow copies of a model, one for each horizon: call `update` after every step of the optimizer.

    Args     model: the learner. horizons: h >= 1 in steps, one for each level, rising; 1 is the learner itself.
    Raises   ValueError if there is no horizon, one is below 1, or they do not rise.
    Example  averages = WeightAverages(model, (100, 500)); ...; optimizer.step(); averages.update();
             ...; accuracy(averages.model_at(500), x, y)
    """

    def __init__(self, model: nn.Module, horizons: Sequence[float] = (100, 200, 500, 1000)) -> None:
        self.horizons = tuple(horizons)
        if not self.horizons or not self.horizons[0] >= 1 or list(self.horizons) != sorted(set(self.horizons)):
            raise ValueError(f"horizons are rising numbers of steps, each at least 1, like (100, 500); got {horizons}")
        self.model = model
        self._averages = [{name: W.detach().clone() for name, W in model.named_parameters()} for _ in self.horizons]

    def __repr__(self) -> str:
        return f"WeightAverages: {describe(self.levels())}"

    @torch.no_grad()
    def update(self) -> None:
        """Write the weights as they are now into every level."""
        for horizon, average in zip(self.horizons, self._averages, strict=True):
            for name, W in self.model.named_parameters():
                hebbian(average[name], None, W, lr=1 / horizon, retain=1 - 1 / horizon, out=average[name])

    def weights_at(self, horizon: float) -> dict[str, Tensor]:
        """Return the averaged weights of one level, by name; they are not copied.

        Raises   ValueError for a horizon that is none of the levels.
        """
        if horizon not in self.horizons:
            raise ValueError(f"horizon must be one of {', '.join(map(str, self.horizons))}; got {horizon}")
        return self._averages[self.horizons.index(horizon)]

    @torch.no_grad()
    def model_at(self, horizon: float) -> nn.Module:
        """Return a copy of the model with the weights of one level; its buffers are the learner's.

        Raises   ValueError for a horizon that is none of the levels.
        """
        slow = copy.deepcopy(self.model)
        averaged = self.weights_at(horizon)
        for name, W in slow.named_parameters():
            W.copy_(averaged[name])
        return slow

    def levels(self) -> list[Level]:
        """The live weights and one average for each horizon."""
        n = sum(W.numel() for W in self.model.parameters())
        live = Level("live weights", 1, "the newest task", numbers=n)
        names = [f"average over {horizon:g} steps" for horizon in self.horizons]
        return [live, *(Level(name, 1, "past weights, fading", (live.name,), numbers=n) for name in names)]

    def state_dict(self) -> dict[str, Any]:
        """Return the averages and their horizons."""
        averages = [{name: W.clone() for name, W in average.items()} for average in self._averages]
        return {"horizons": self.horizons, "averages": averages}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state.

        Raises   ValueError if it has other horizons or belongs to a model with other weights.
        """
        if tuple(state["horizons"]) != self.horizons:
            raise ValueError(f"the saved averages have the horizons {state['horizons']}, these {self.horizons}")
        for own, saved in zip(self._averages, state["averages"], strict=True):
            shapes, given = ({name: tuple(W.shape) for name, W in part.items()} for part in (own, saved))
            if shapes != given:
                raise ValueError(f"the saved averages are of a model with the weights {given}, this one has {shapes}")
        for own, saved in zip(self._averages, state["averages"], strict=True):
            for name, average in own.items():
                average.copy_(saved[name])
