"""Exercises of notebook 04: the best fit, one step of Adam, and where AdamW puts the weight decay."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from nlcore.course.exercises.framework import Exercise, Mistake, Stage


def best_fit(gradients: list[float], beta: float) -> float:
    """Return the number closest to all gradients, where a gradient of age k weighs beta^k."""
    t = len(gradients)
    weights = [beta ** (t - 1 - i) for i in range(t)]
    return sum(w * g for w, g in zip(weights, gradients, strict=True)) / sum(weights)


def adam_step(W: Tensor, g: Tensor, m: Tensor, v: Tensor, t: int, lr: float, betas: Any, eps: float) -> Any:
    """Return the weights and both memories after step t of Adam; steps are counted from 1."""
    beta1, beta2 = betas
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g**2
    m_hat = m / (1 - beta1**t)
    v_hat = v / (1 - beta2**t)
    return W - lr * m_hat / (v_hat.sqrt() + eps), m, v


def adamw_move(W: Tensor, m_hat: Tensor, v_hat: Tensor, lr: float, eps: float, weight_decay: float) -> Tensor:
    """Return the weights after a step of AdamW, given both memories with their bias corrected."""
    return (1 - lr * weight_decay) * W - lr * m_hat / (v_hat.sqrt() + eps)


def _best_fit_oracle(gradients: list[float], beta: float) -> float:
    t = len(gradients)
    root = torch.tensor([beta ** (t - 1 - i) for i in range(t)], dtype=torch.float64).sqrt()
    return torch.linalg.lstsq(root[:, None], (root * _numbers(*gradients))[:, None]).solution.item()


def _adam_step_oracle(W: Tensor, g: Tensor, m: Tensor, v: Tensor, t: int, lr: float, betas: Any, eps: float) -> Any:
    weight = torch.nn.Parameter(W.clone())
    weight.grad = g.clone()
    optimizer = torch.optim.Adam([weight], lr=lr, betas=betas, eps=eps)
    optimizer.state[weight] = {"step": torch.tensor(t - 1.0), "exp_avg": m.clone(), "exp_avg_sq": v.clone()}
    optimizer.step()
    state = optimizer.state[weight]
    return weight.detach(), state["exp_avg"], state["exp_avg_sq"]


def _adamw_move_oracle(W: Tensor, m_hat: Tensor, v_hat: Tensor, lr: float, eps: float, weight_decay: float) -> Tensor:
    """Hand torch.optim.AdamW memories that are `m_hat` and `v_hat` after its next, very late, step."""
    weight = torch.nn.Parameter(W.clone())
    weight.grad = m_hat.clone()
    optimizer = torch.optim.AdamW([weight], lr=lr, betas=(0.5, 0.5), eps=eps, weight_decay=weight_decay)
    before = 2 * v_hat - m_hat.square()  # half of it and half of the squared gradient make v_hat
    optimizer.state[weight] = {"step": torch.tensor(1e6), "exp_avg": m_hat.clone(), "exp_avg_sq": before}
    optimizer.step()
    return weight.detach()


def _fit(weigh: Callable[[int, float], float], total: Callable[[list[float]], float]) -> Callable[..., float]:
    """Return a best_fit that weighs age k by weigh(k, beta) and divides by total(weights)."""

    def answer(gradients: list[float], beta: float) -> float:
        weights = [weigh(len(gradients) - 1 - i, beta) for i in range(len(gradients))]
        return sum(w * g for w, g in zip(weights, gradients, strict=True)) / total(weights)

    return answer


def _write(g: Tensor, m: Tensor, v: Tensor, beta1: float, beta2: float) -> tuple[Tensor, Tensor]:
    return beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g**2


def _adam(
    write: Callable[..., tuple[Tensor, Tensor]] = _write,
    given: Callable[[float, int], float] = lambda beta, t: 1 - beta**t,
    scale: Callable[[Tensor, float], Tensor] = lambda v_hat, eps: v_hat.sqrt() + eps,
    sign: float = -1.0,
    returns_hats: bool = False,
) -> Callable[..., Any]:
    """Return an adam_step with one of its parts replaced by a wrong one."""

    def answer(W: Tensor, g: Tensor, m: Tensor, v: Tensor, t: int, lr: float, betas: Any, eps: float) -> Any:
        m, v = write(g, m, v, *betas)
        m_hat, v_hat = m / given(betas[0], t), v / given(betas[1], t)
        W = W + sign * lr * m_hat / scale(v_hat, eps)
        return (W, m_hat, v_hat) if returns_hats else (W, m, v)

    return answer


def _adamw(answer: Callable[[Tensor, Tensor, float, float], Tensor]) -> Callable[..., Tensor]:
    """Return an adamw_move from answer(weights, direction, lr, weight_decay)."""

    def wrong(W: Tensor, m_hat: Tensor, v_hat: Tensor, lr: float, eps: float, weight_decay: float) -> Tensor:
        return answer(W, m_hat / (v_hat.sqrt() + eps), lr, weight_decay)

    return wrong


def _random(seed: int) -> Tensor:
    return torch.randn((2, 3), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _numbers(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def _four(*values: float) -> tuple[Tensor, ...]:
    return tuple(_numbers(value) for value in values)


BEST_FIT = Exercise(
    name="best_fit",
    notebook="04",
    solution=best_fit,
    oracle=_best_fit_oracle,
    stages=(
        Stage("a single gradient", lambda: ([3.0], 0.9)),
        Stage("two gradients, the older one weighs half", lambda: ([1.0, 4.0], 0.5)),
        Stage("beta = 1, where all gradients weigh the same", lambda: ([2.0, -1.0, 5.0], 1.0)),
        Stage("six random gradients", lambda: (_random(0).flatten().tolist(), 0.9)),
        Stage("beta = 0, where only the newest counts", lambda: ([2.0, -1.0, 5.0], 0.0)),
    ),
    mistakes=(
        Mistake(lambda g, beta: best_fit(g[::-1], beta), "Your weights run the wrong way: the newest weighs the most."),
        Mistake(
            _fit(lambda k, beta: beta**k, lambda w: 1.0),
            "You sum the weighted gradients. The best fit is their weighted mean: divide by the sum of the weights.",
        ),
        Mistake(
            _fit(lambda k, beta: (1 - beta) * beta**k, lambda w: 1.0),
            "This is Adam's memory m before the bias correction. Its weights add up to 1 - beta^t: divide by that.",
        ),
        Mistake(_fit(lambda k, beta: 1.0, sum), "You give every gradient the same weight: age k weighs beta ** k."),
        Mistake(
            _fit(lambda k, beta: beta**k, lambda w: float(len(w))),
            "You divide by the number of gradients. Divide by the sum of their weights.",
        ),
        Mistake(
            _fit(lambda k, beta: beta ** (2 * k), sum),
            "Your weights enter squared. The objective has w * (m - g)^2: lstsq needs rows scaled by the root of w.",
        ),
    ),
    hints=(
        "Set the slope of the objective to zero: the sum of w_i * (m - g_i) is 0. Solve it for m.",
        "m is the weighted mean, sum of w * g over sum of w. The newest gradient is the last: its age is 0.",
        "With t = len(gradients), the weights are [beta ** (t - 1 - i) for i in range(t)].",
    ),
)

ADAM_STEP = Exercise(
    name="adam_step",
    notebook="04",
    solution=adam_step,
    oracle=_adam_step_oracle,
    stages=(
        Stage("the first step of one weight", lambda: (*_four(1, 0.5, 0, 0), 1, 0.1, (0.9, 0.999), 1e-8)),
        Stage("a later step, with filled memories", lambda: (*_four(1, 0.5, -0.2, 0.3), 7, 0.1, (0.9, 0.99), 1e-8)),
        Stage("a gradient so small that eps matters", lambda: (*_four(1, 1e-4, 0, 0), 1, 0.1, (0.9, 0.999), 1e-3)),
        Stage(
            "a whole matrix of weights",
            lambda: (_random(1), _random(2), _random(3), _random(4) ** 2, 5, 0.01, (0.8, 0.95), 1e-8),
        ),
    ),
    mistakes=(
        Mistake(
            _adam(given=lambda beta, t: 1.0),
            "The bias correction is missing: divide m by 1 - beta1**t and v by 1 - beta2**t before you use them.",
        ),
        Mistake(
            _adam(scale=lambda v_hat, eps: (v_hat + eps).sqrt()),
            "Your eps is inside the root. Adam takes the root first and adds eps afterwards: v_hat.sqrt() + eps.",
        ),
        Mistake(
            _adam(scale=lambda v_hat, eps: v_hat + eps),
            "You divide by v_hat. Take its root: v holds squares, a step must not depend on the gradient's unit.",
        ),
        Mistake(
            _adam(write=lambda g, m, v, beta1, beta2: _write(g, m, v, beta2, beta1)),
            "The two betas are swapped in the memories: m keeps the part beta1, v keeps the part beta2.",
        ),
        Mistake(
            _adam(write=lambda g, m, v, beta1, beta2: (_write(g, m, v, beta1, beta2)[0], beta2 * v + (1 - beta2) * g)),
            "Your second memory stores the gradients themselves. It stores their squares: g**2.",
        ),
        Mistake(
            _adam(write=lambda g, m, v, beta1, beta2: (beta1 * m + g, beta2 * v + g**2)),
            "Your memories add the whole new value. They are moving means: it enters with the part 1 - beta.",
        ),
        Mistake(_adam(sign=1.0), "The sign is wrong: the weights move against the remembered gradient."),
        Mistake(
            _adam(returns_hats=True),
            "You return the corrected memories. Return m and v as written: the next step corrects them itself.",
        ),
    ),
    hints=(
        "Four things happen in this order: write g into m, write g**2 into v, correct both, move the weights.",
        "m = beta1 * m + (1 - beta1) * g, and v likewise with beta2 and g**2. m_hat = m / (1 - beta1**t).",
        "Return W - lr * m_hat / (v_hat.sqrt() + eps), m, v. The last two are the memories before the correction.",
    ),
)

ADAMW_MOVE = Exercise(
    name="adamw_move",
    notebook="04",
    solution=adamw_move,
    oracle=_adamw_move_oracle,
    stages=(
        Stage("no decay at all", lambda: (_numbers(2), _numbers(0.5), _numbers(4), 0.1, 1e-8, 0.0)),
        Stage("decay alone, without a gradient", lambda: (_numbers(2), _numbers(0), _numbers(4), 0.1, 1e-8, 0.5)),
        Stage("both together", lambda: (_numbers(2, 2), _numbers(0.5, -1), _numbers(4, 0.04), 0.1, 1e-8, 0.5)),
        Stage("a whole matrix of weights", lambda: (_random(5), _random(6), _random(7) ** 2, 0.3, 1e-3, 0.2)),
    ),
    mistakes=(
        Mistake(
            lambda W, m_hat, v_hat, lr, eps, decay: W - lr * (m_hat + decay * W) / (v_hat.sqrt() + eps),
            "Your decay is divided by the second memory, as in Adam with an L2 penalty.",
        ),
        Mistake(
            _adamw(lambda W, move, lr, decay: (1 - decay) * W - lr * move),
            "Your weights lose the part weight_decay. In AdamW, as in PyTorch, they lose lr * weight_decay.",
        ),
        Mistake(
            _adamw(lambda W, move, lr, decay: (1 - lr * decay) * (W - lr * move)),
            "You let the weights decay after the move. Only the old weights decay; the new step is added whole.",
        ),
        Mistake(
            _adamw(lambda W, move, lr, decay: (1 + lr * decay) * W - lr * move),
            "Your weights grow: the part that is kept is 1 - lr * weight_decay.",
        ),
        Mistake(_adamw(lambda W, move, lr, decay: W - lr * move), "This is the step of Adam: the decay is missing."),
        Mistake(
            _adamw(lambda W, move, lr, decay: (1 - lr * decay) * W + lr * move),
            "The decay is right, the sign of the step is wrong: the weights move against the remembered gradient.",
        ),
    ),
    hints=(
        "The weights are a memory too. In hebbian(M, None, value, lr, retain), what makes a memory forget?",
        "Keep the part 1 - lr * weight_decay of the old weights. Then take Adam's step, which sees no decay.",
        "Return (1 - lr * weight_decay) * W - lr * m_hat / (v_hat.sqrt() + eps).",
    ),
)

EXERCISES = (BEST_FIT, ADAM_STEP, ADAMW_MOVE)
