r"""M3, multi-scale momentum Muon: a fast and a slow memory of gradients, both made orthogonal, scaled as in Adam.

    M1 <- fast memory of g                                    every step
    M2 <- slow memory of the gradients of one chunk           every `period` steps
    V  <- memory of g^2                                       every step
    W  <- W - eta (NS(M1) + alpha NS(M2)) / (sqrt(V) + epsilon)

    mode        M1                        M2                                    V
    "literal"   M1 + beta1 g              M2 + beta3 sum of the chunk           V + beta2 g^2
    "ema"       beta1 M1 + (1-beta1) g    beta3 M2 + (1-beta3) mean of chunk    beta2 V + (1-beta2) g^2, bias corrected

"literal" is Algorithm 1 as printed. Nothing fades there, so both memories hold the sum of ALL gradients, M2 without the
current chunk: M1 / beta1 - M2 / beta3 is exactly the sum since the last slow write, and since Newton-Schulz ignores
scale, beta1 and beta3 have no effect. "ema" gives the two memories the two horizons that the text describes.
A chunk is the last `period` gradients (the printed sum has one more, counted twice). After the first chunk NS(M2) is
computed once and kept until the next slow write: the slow level costs 1 / period of a Newton-Schulz a step.

Source   Behrouz et al. 2025, section 7.2, Algorithm 1 and Eq. 75. The paper gives no hyper-parameters: the defaults
         are ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from nlcore.levels import Level
from nlcore.memory import hebbian
from nlcore.optimizers.checks import check_beta, check_choice, check_count, check_not_negative
from nlcore.optimizers.matrices import MatrixOptimizer, adjusted
from nlcore.optimizers.multiscale import remember_chunk, slow_levels

MODES = ("ema", "literal")


class M3(MatrixOptimizer):
    """Fast and slow momentum, both orthogonal, over the root of the second moment.

    Args     params: parameters or groups of them. lr: step size eta of matrices, >= 0. betas: (beta1, beta2, beta3) of
             M1, V and M2, in [0, 1); "literal" also takes 1. alpha: weight of the slow memory, >= 0.
             period: steps between two slow writes, >= 1. mode: "ema" or "literal", see above. second_moment: False
             leaves out the division by sqrt(V). weight_decay: lambda >= 0, decoupled. eps: >= 0.
             ns_steps, ns_method, ns_dtype, ns_eps: see `newton_schulz`. adjust_lr, adamw_lr, use_muon, stacked: as in
             `Muon`; AdamW takes beta1 and beta2.
    Raises   ValueError for a value outside its range, TypeError for one of the wrong kind; FloatingPointError in `step`
             for a gradient that is not finite.
    Source   Algorithm 1, Eq. 75.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 0.02,
        betas: tuple[float, float, float] = (0.9, 0.999, 0.9),
        alpha: float = 0.3,
        period: int = 10,
        mode: str = "ema",
        second_moment: bool = True,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        ns_steps: int = 5,
        ns_method: str | Sequence[float] = "quintic",
        ns_dtype: torch.dtype | None = None,
        ns_eps: float = 1e-7,
        adjust_lr: str | None = None,
        adamw_lr: float = 3e-4,
        use_muon: bool | None = None,
        stacked: bool = False,
    ) -> None:
        own = {"lr": lr, "betas": betas, "alpha": alpha, "period": period, "mode": mode, "eps": eps}
        own |= {"second_moment": second_moment, "weight_decay": weight_decay, "adjust_lr": adjust_lr}
        ns = {"ns_steps": ns_steps, "ns_method": ns_method, "ns_dtype": ns_dtype, "ns_eps": ns_eps}
        others = {"adamw_lr": adamw_lr, "use_muon": use_muon, "stacked": stacked}
        torch.optim.Optimizer.__init__(self, params, {**own, **ns, **others})

    def check_group(self, group: dict[str, Any]) -> dict[str, Any]:
        """Check all settings."""
        check_choice("mode", group["mode"], MODES)
        check_count("period", group["period"])
        check_not_negative("alpha", group["alpha"])
        betas = group["betas"]
        if group["use_muon"] is False:  # left to AdamW, which takes the first two
            betas = betas[:2] if isinstance(betas, Sequence) else betas
        else:
            if not isinstance(betas, Sequence) or isinstance(betas, str) or len(betas) != 3:
                raise TypeError(f"betas must be three numbers (beta1, beta2, beta3), got {betas!r}")
            betas = tuple(
                1.0 if group["mode"] == "literal" and beta == 1.0 else check_beta(f"beta{number}", beta)
                for number, beta in enumerate(betas, start=1)
            )
        pair = tuple(min(beta, 0.999) for beta in betas[:2])  # what AdamW would be given; checked there
        return {**super().check_group({**group, "betas": pair}), "betas": betas}

    def for_others(self, settings: dict[str, Any]) -> dict[str, Any]:
        """AdamW has its own learning rate and the first two betas."""
        return {**super().for_others(settings), "betas": tuple(min(beta, 0.999) for beta in settings["betas"][:2])}

    def update_matrix(self, W: Tensor, g: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        """Write the slow memory if its time has come, then the fast ones, then move W."""
        if "step" not in state:
            state["step"] = 0
            state.update({name: torch.zeros_like(W) for name in ("M1", "M2", "V", "O2", "chunk")})
        beta1, beta2, beta3 = group["betas"]
        literal, alpha = group["mode"] == "literal", group["alpha"]
        if remember_chunk(state, "M2", g, group["period"], beta3, literal):
            state["O2"].copy_(self.orthogonal(state["M2"], group))
        M1 = hebbian(
            state["M1"], None, g, lr=beta1 if literal else 1 - beta1, retain=1.0 if literal else beta1, out=state["M1"]
        )
        move = self.orthogonal(M1, group).to(W.dtype).add_(state["O2"], alpha=alpha)
        if group["second_moment"]:
            write, retain = (beta2, 1.0) if literal else (1 - beta2, beta2)
            V = hebbian(state["V"], None, g * g, lr=write, retain=retain, out=state["V"])
            root = V.sqrt() if literal else torch.div(V, 1 - beta2 ** state["step"]).sqrt_()
            move.div_(root.add_(group["eps"]))
        keep = 1 - group["lr"] * group["weight_decay"]
        hebbian(W, None, move, lr=-adjusted(group["lr"], group["adjust_lr"], W), retain=keep, out=W)

    def levels(self) -> list[Level]:
        """M1 and V at every step, M2 once a period; the weights need all three."""
        groups = [group for group in self.param_groups if group["use_muon"]]
        n = self.count(matrices=True)
        slow = slow_levels("slow momentum M2", groups)
        fast = [Level("fast momentum M1", 1, "the past gradients of the matrices", numbers=n)]
        if any(group["second_moment"] for group in groups):
            fast.append(Level("second moment V", 1, "their squares", numbers=n))
        needs = tuple(part.name for part in fast + slow)
        weights = Level("weights W", 1, "inputs -> their surprise, at two time scales", needs=needs, numbers=n)
        return [*fast, *slow, weights, *self.levels_of_others()]
