r"""Five ways in which knowledge passes from one level to another, each in a few lines.

    kind                  what passes                              what gets a gradient               paper
    direct_parametric     the answer of a fast memory's weights    the slow query, not the memory     Eq. 24-26
    direct_nonparametric  the answer of a fast memory's context    the slow query, not the context    Eq. 27, 62
    backpropagation       the surprise, through the other block    both blocks, each at its period    section 3.3
    initialisation        the state in which a fast level starts   the start, through inner steps     Eq. 28
    generation            the weights or context of the other      the generator                      section 3.3

In the direct kinds neither level learns through the other: each takes the other's state as given. That is one way to
read such a model; most libraries let the gradient pass through the memory too.

Symbols   T tokens, D width; x (T, D); W_q, W_k, W_v slow weights (D, D); M fast memory (D, D).
Source    Behrouz et al. 2025, Nested Learning, section 3.3.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from nlcore.memory import hebbian, read

KINDS = {  # the function below that shows it: what it is
    "direct_parametric": "the slow level asks the weights of the fast level",
    "direct_nonparametric": "the slow level asks the context of the fast level",
    "backpropagation": "one flow of gradients writes both levels, each at its own period",
    "initialisation": "the slow level is the state in which the fast level starts",
    "generation": "one level makes the weights, or the context, of the other",
}


class Answers(NamedTuple):
    """What was answered, and from what: `memory` is the fast level's state, or the weights of the context."""

    y: Tensor
    memory: Tensor


def direct_parametric(x: Tensor, W_q: Tensor, W_k: Tensor, W_v: Tensor) -> Answers:
    """Linear attention: a slow query asks a fast memory that writes itself at every token.

        M_t = M_{t-1} + v_t k_t^T,    y_t = M_t (W_q x_t)                                            (Eq. 26)

    Args     x: (T, D) tokens. W_q, W_k, W_v: (D, D) slow weights.
    Returns  y: (T, D), with a gradient to W_q only; memory: M_T, without one.
    """
    keys, values = (x @ W_k.T).detach(), (x @ W_v.T).detach()  # given to the fast level
    M = torch.zeros_like(W_v).detach()
    answers = []
    for token, k, v in zip(x, keys, values, strict=True):
        M = hebbian(M, k, v)
        answers.append(read(M, read(W_q, token)))
    return Answers(torch.stack(answers), M)


def direct_nonparametric(q: Tensor, keys: Tensor, values: Tensor) -> Answers:
    """Softmax attention: the fast memory is its context, and the answer is computed anew for each query.

        M* = argmin_M sum_i s(k_i, q) |v_i - M|^2 = sum_i s_i v_i / sum_j s_j,    s = exp(k.q / sqrt(D))   (Eq. 62)

    Args     q: (T, D) queries of the slow level. keys, values: (N, D), (N, E), the context. It has no state to train.
    Returns  y: (T, E), with a gradient to q only; memory: (T, N), how much each item of the context counts.
    """
    scores = q @ keys.detach().T / q.shape[-1] ** 0.5  # (T, N)
    similarity = torch.exp(scores - scores.amax(-1, keepdim=True).detach())  # a common factor, which cancels
    weights = similarity / similarity.sum(-1, keepdim=True)
    return Answers(weights @ values.detach(), weights)


class Flow(NamedTuple):
    """Two blocks after training: their weights, and their distance from the start after each step, (steps, 2)."""

    W0: Tensor
    W1: Tensor
    drift: Tensor


def backpropagation(
    W0: Tensor,
    W1: Tensor,
    x: Tensor,
    target: Tensor,
    periods: tuple[int, int] = (8, 1),
    lrs: tuple[float, float] = (0.05, 0.05),
) -> Flow:
    r"""Train two blocks in one flow of gradients, each written once in its own period with the sum of its gradients.

        h = tanh(W0 x),  y = W1 h;    delta1 = y - target,  delta0 = (1 - h^2) * (W1^T delta1)
        W0 <- W0 - eta0 sum delta0 x^T  every periods[0] steps
        W1 <- W1 - eta1 sum delta1 h^T  every periods[1] steps

    What block 0 learns passes through the weights of block 1; block 1 sees the world through block 0.

    Args     W0: (H, D). W1: (E, H). x: (steps, D), one example a step. target: (steps, E). periods: of W0 and W1,
             whole numbers of steps >= 1. lrs: eta0 and eta1.
    Returns  the weights after the last step, and the drift of both.
    Raises   ValueError for a period below 1.
    """
    if min(periods) < 1:
        raise ValueError(f"periods are whole numbers of steps >= 1, got {periods}")
    blocks, sums, drift = [W0, W1], [torch.zeros_like(W0), torch.zeros_like(W1)], []
    for step, (key, goal) in enumerate(zip(x, target, strict=True), start=1):
        h = torch.tanh(read(blocks[0], key))
        delta1 = read(blocks[1], h) - goal
        delta0 = (1 - h.square()) * read(blocks[1].mT, delta1)
        sums = [hebbian(sums[0], key, delta0), hebbian(sums[1], h, delta1)]
        for level, period in enumerate(periods):
            if step % period == 0:
                blocks[level] = hebbian(blocks[level], None, sums[level], lr=-lrs[level])
                sums[level] = torch.zeros_like(sums[level])
        drift.append(torch.stack([(blocks[0] - W0).norm(), (blocks[1] - W1).norm()]))
    return Flow(blocks[0], blocks[1], torch.stack(drift))


def regression_tasks(
    tasks: int, examples: int = 12, size: int = 6, spread: float = 0.3, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Return a family of small regression tasks y = w.x, whose true w lie around one common vector.

    Args     tasks, examples, size: how many tasks, examples of each, numbers in x; all >= 1. Give the fast level fewer
             examples than numbers, and they leave w open. spread: standard deviation of w around the common vector
             (1, -1, 1, ...), which is the same for every seed. seed: of the tasks.
    Returns  x: (tasks, examples, size), y: (tasks, examples), float64.
    Raises   ValueError for a count below 1.
    """
    if min(tasks, examples, size) < 1:
        raise ValueError(f"tasks, examples and size are counts >= 1, got {tasks}, {examples}, {size}")
    generator = torch.Generator().manual_seed(seed)
    common = torch.tensor([1.0, -1.0], dtype=torch.float64).repeat(size)[:size]
    w = common + spread * torch.randn(tasks, size, generator=generator, dtype=torch.float64)
    x = torch.randn(tasks, examples, size, generator=generator, dtype=torch.float64)
    return x, read(x, w)


def adapt(start: Tensor, x: Tensor, y: Tensor, steps: int, lr: float = 0.1) -> Tensor:
    """Let the fast level learn each task from one start: `steps` steps of gradient descent on 1/2 mean (w.x - y)^2.

    Args     start: (D,). x: (tasks, N, D). y: (tasks, N). steps: >= 0. lr: their size.
    Returns  w: (tasks, D), through which a gradient reaches `start`.
    """
    w = start.expand(len(x), -1)
    for _ in range(steps):
        error = read(x, w) - y  # (tasks, N)
        w = w - lr * read(x.mT, error) / x.shape[1]
    return w


def adapted_loss(start: Tensor, x: Tensor, y: Tensor, seen: int, steps: int) -> Tensor:
    """Return 1/2 mean (w.x - y)^2 on the other examples, after `steps` steps on the first `seen` of each task.

    Args     start: (D,). x: (tasks, N, D). y: (tasks, N). seen: 1 to N - 1. steps: inner steps, >= 0.
    Raises   ValueError if no example is left on one side.
    """
    if not 1 <= seen < x.shape[1]:
        raise ValueError(f"seen must lie between 1 and {x.shape[1] - 1}: some examples to adapt to, some to judge by")
    w = adapt(start, x[:, :seen], y[:, :seen], steps)
    return (read(x[:, seen:], w) - y[:, seen:]).square().mean() / 2


def initialisation(
    start: Tensor, x: Tensor, y: Tensor, seen: int = 4, steps: int = 3, outer_steps: int = 100, outer_lr: float = 0.5
) -> tuple[Tensor, list[float]]:
    """Meta-learn the state in which a fast level starts, through its inner steps (MAML).

        start* = argmin_start  mean over tasks of the loss on unseen examples after the inner steps    (Eq. 28)

    Args     start: (D,). x, y, seen, steps: as in `adapted_loss`. outer_steps: steps of gradient descent on the start.
             outer_lr: their size.
    Returns  the learned start, and the loss before each outer step.
    """
    start, losses = start.detach().clone().requires_grad_(), []
    for _ in range(outer_steps):
        loss = adapted_loss(start, x, y, seen, steps)
        (gradient,) = torch.autograd.grad(loss, start)
        losses.append(loss.item())
        start = (start - outer_lr * gradient).detach().requires_grad_()
    return start.detach(), losses


def generation(G: Tensor, context: Tensor, x: Tensor) -> Answers:
    """Generate the weights of a layer from a context (a hypernetwork), and apply them.

        W = G c,    y = W x

    Args     G: (E, D, C), the slow weights. context: (C,), c. x: (..., D).
    Returns  y: (..., E); memory: W, (E, D). It has no weights of its own to be trained: the gradient passes on to G.
    """
    W = G @ context  # (E, D, C) @ (C,) -> (E, D)
    return Answers(read(W, x), W)


def generated_context(W: Tensor, x: Tensor, target: Tensor, beta: float = 0.9) -> Answers:
    """Generate the context of an optimizer: the gradients of the architecture are the tokens that momentum reads.

        g_t = (W x_t - target_t) x_t^T,    m_t = beta m_{t-1} + g_t                                    (Eq. 22-23, 33)

    Args     W: (E, D), held fixed here so that only the context is seen. x: (T, D). target: (T, E). beta: in [0, 1].
    Returns  y: (T, E, D), the context g_1 .. g_T; memory: m_T, (E, D).
    """
    surprise = read(W, x) - target
    context = surprise.unsqueeze(-1) * x.unsqueeze(-2)  # (T, E, 1) * (T, 1, D) -> (T, E, D)
    m = torch.zeros_like(W)
    for g in context:
        m = hebbian(m, None, g, retain=beta)
    return Answers(context, m)
