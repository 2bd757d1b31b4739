"""The five kinds of knowledge transfer: each equation by another route, and which level learns through which."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from nlcore import transfer
from nlcore.optimizers import Momentum
from nlcore.transfer import (
    adapt,
    adapted_loss,
    backpropagation,
    direct_nonparametric,
    direct_parametric,
    generated_context,
    generation,
    initialisation,
    regression_tasks,
)

SEEDS = range(4)


def random(*shapes: tuple[int, ...], seed: int, grad: bool = False) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_(grad) for shape in shapes]


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_the_table_names_five_functions() -> None:
    assert len(transfer.KINDS) == 5 and all(callable(getattr(transfer, name)) for name in transfer.KINDS)


@pytest.mark.parametrize("seed", SEEDS)
def test_direct_parametric_is_linear_attention_read_by_a_slow_query(seed: int) -> None:
    x, W_q, W_k, W_v = random((7, 3), (3, 3), (3, 3), (3, 3), seed=seed)
    y, M = direct_parametric(x, W_q, W_k, W_v)
    scores = torch.tril((x @ W_q.T) @ (x @ W_k.T).T)  # the same without any memory: each query meets the past keys
    close(y, scores @ (x @ W_v.T))
    close(M, (x @ W_v.T).T @ (x @ W_k.T))


@pytest.mark.parametrize("seed", SEEDS)
def test_direct_parametric_teaches_the_query_and_not_the_memory(seed: int) -> None:
    x, W_q, W_k, W_v = random((7, 3), (3, 3), (3, 3), (3, 3), seed=seed, grad=True)
    y, M = direct_parametric(x, W_q, W_k, W_v)
    assert not M.requires_grad
    (out,) = random((7, 3), seed=seed + 100)
    y.backward(out)
    assert W_k.grad is None and W_v.grad is None
    past = [(x[: t + 1] @ W_v.T).T @ (x[: t + 1] @ W_k.T) for t in range(7)]  # M_t, a constant for the slow level
    close(W_q.grad, sum(torch.outer(past[t].T @ out[t], x[t]) for t in range(7)).detach())
    close(x.grad, torch.stack([W_q.T @ past[t].T @ out[t] for t in range(7)]).detach())  # through the query alone
    other = direct_parametric(x, 2 * W_q, W_k, W_v)
    close(other.memory, M)  # the slow weight changes what is asked, never what is stored
    close(other.y, 2 * y)


@pytest.mark.parametrize("seed", SEEDS)
def test_direct_nonparametric_is_softmax_attention_and_the_best_single_answer(seed: int) -> None:
    q, keys, values = random((5, 4), (9, 4), (9, 3), seed=seed)
    y, weights = direct_nonparametric(q, keys, values)
    close(y, scaled_dot_product_attention(q[None], keys[None], values[None])[0])
    close(weights.sum(-1), torch.ones(5, dtype=torch.float64))
    M = y.clone().requires_grad_()  # Eq. 62: the gradient of sum_i s(k_i, q) |v_i - M|^2 is zero there
    s = torch.exp(q @ keys.T / 2)
    (s * (values - M[:, None]).square().sum(-1)).sum().backward()
    close(M.grad / s.sum(-1, keepdim=True), torch.zeros_like(M))


def test_direct_nonparametric_has_nothing_to_train_but_the_query() -> None:
    q, keys, values = random((5, 4), (9, 4), (9, 3), seed=0, grad=True)
    y, _ = direct_nonparametric(q, keys, values)
    (expected,) = torch.autograd.grad(
        scaled_dot_product_attention(q[None], keys.detach()[None], values.detach()[None]).sum(), q
    )
    y.sum().backward()
    close(q.grad, expected)
    assert keys.grad is None and values.grad is None
    with torch.no_grad():
        alone = direct_nonparametric(q, keys[:1], values[:1]).y
    close(alone, values[:1].detach().expand(5, -1))  # another context answers at once, without a step
    assert direct_nonparametric(1e4 * q, keys, values).y.isfinite().all()


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("periods", [(1, 1), (4, 1), (2, 3)])
def test_backpropagation_equals_autograd_with_two_periods(seed: int, periods: tuple[int, int]) -> None:
    W0, W1, x, target = random((5, 3), (2, 5), (12, 3), (12, 2), seed=seed)
    flow = backpropagation(W0, W1, x, target, periods, lrs=(0.05, 0.02))
    blocks = [W0.clone().requires_grad_(), W1.clone().requires_grad_()]
    for step in range(1, 13):
        error = blocks[1] @ torch.tanh(blocks[0] @ x[step - 1]) - target[step - 1]
        (error.square().sum() / 2).backward()
        for block, period, lr in zip(blocks, periods, (0.05, 0.02), strict=True):
            if step % period == 0:
                block.data -= lr * block.grad
                block.grad = None
        close(flow.drift[step - 1], torch.stack([(blocks[0] - W0).norm(), (blocks[1] - W1).norm()]).detach())
    close(flow.W0, blocks[0].detach())
    close(flow.W1, blocks[1].detach())


def test_backpropagation_carries_knowledge_through_the_other_block() -> None:
    W0, W1, x, target = random((5, 3), (2, 5), (8, 3), (8, 2), seed=0)
    flow = backpropagation(W0, W1, x, target, periods=(4, 1))
    moved = torch.diff(flow.drift, dim=0, prepend=torch.zeros(1, 2, dtype=torch.float64)) != 0
    assert moved[:, 1].all() and moved[:, 0].tolist() == [step % 4 == 0 for step in range(1, 9)]
    assert (backpropagation(W0, 0 * W1, x, target, periods=(1, 100)).drift == 0).all()  # nothing comes through zeros
    other = backpropagation(W0, -W1, x, -target, periods=(8, 100))
    close(other.W0, backpropagation(W0, W1, x, target, periods=(8, 100)).W0)  # delta0 = W1^T delta1: both signs turn
    with pytest.raises(ValueError, match="periods"):
        backpropagation(W0, W1, x, target, periods=(0, 1))


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_inner_steps_and_the_gradient_through_them_in_closed_form(steps: int) -> None:
    x, y = regression_tasks(5, seed=1)
    (start,) = random((6,), seed=2, grad=True)
    w = adapt(start, x[:, :4], y[:, :4], steps)
    true = torch.linalg.lstsq(x, y.unsqueeze(-1)).solution.squeeze(-1)
    A = torch.eye(6, dtype=torch.float64) - 0.1 * x[:, :4].mT @ x[:, :4] / 4
    power = torch.linalg.matrix_power(A, steps)  # w_k - w* = (I - eta H)^k (start - w*)
    close(w, true + (power @ (start - true).unsqueeze(-1)).squeeze(-1))
    loss = adapted_loss(start, x, y, seen=4, steps=steps)
    (gradient,) = torch.autograd.grad(loss, start)
    H = x[:, 4:].mT @ x[:, 4:] / 8
    expected = (power.mT @ H @ power @ (start - true).unsqueeze(-1)).squeeze(-1).mean(0)
    close(gradient, expected.detach())


def test_a_learned_start_beats_random_starts_on_new_tasks_after_the_same_inner_steps() -> None:
    x, y = regression_tasks(64, seed=0)
    start, losses = initialisation(torch.zeros(6, dtype=torch.float64), x, y)
    new = regression_tasks(64, seed=1)
    learned = adapted_loss(start, *new, seen=4, steps=3)
    others = [adapted_loss(other, *new, seen=4, steps=3) for other in random(*[(6,)] * 20, seed=3)]
    assert learned < 0.25 * min(others) and losses[-1] < 0.2 * losses[0]
    assert learned < 0.25 * adapted_loss(torch.zeros_like(start), *new, seen=4, steps=3)
    close(torch.sign(start), torch.tensor([1.0, -1.0] * 3, dtype=torch.float64))  # what the tasks have in common
    (gradient,) = torch.autograd.grad(adapted_loss(best := _converged(x, y), x, y, seen=4, steps=3), best)
    close(gradient, torch.zeros(6, dtype=torch.float64))  # Eq. 28: the minimum over the family


def _converged(x: Tensor, y: Tensor) -> Tensor:
    return initialisation(torch.zeros(6, dtype=torch.float64), x, y, outer_steps=600)[0].requires_grad_()


@pytest.mark.parametrize("seed", SEEDS)
def test_generated_weights_pass_the_gradient_on_to_the_generator(seed: int) -> None:
    G, c, x = random((2, 3, 4), (4,), (5, 3), seed=seed, grad=True)
    y, W = generation(G, c, x)
    close(y, torch.einsum("edc,c,td->te", G, c, x))
    (out,) = random((5, 2), seed=seed + 50)
    y.backward(out)
    dW = out.T @ x  # what a layer with weights of its own would learn from
    close(G.grad, (dW.unsqueeze(-1) * c).detach())
    close(c.grad, torch.einsum("ed,edc->c", dW, G).detach())
    assert W.grad_fn is not None and not W.is_leaf  # nothing of its own


@pytest.mark.parametrize("seed", SEEDS)
def test_the_architecture_generates_the_context_of_its_optimizer(seed: int) -> None:
    W, x, target = random((2, 3), (6, 3), (6, 2), seed=seed)
    context, m = generated_context(W, x, target, beta=0.8)
    weights = W.clone().requires_grad_()
    optimizer = Momentum([weights], lr=0.0, beta=0.8)  # lr 0: W stays, so that the context is seen alone
    for t in range(6):
        optimizer.zero_grad()
        ((weights @ x[t] - target[t]).square().sum() / 2).backward()
        close(context[t], weights.grad)
        optimizer.step()
    close(m, optimizer.state[weights]["m"])
    assert not torch.allclose(generated_context(2 * W, x, target).y, context)  # another architecture, another context


def test_bad_input_is_named() -> None:
    x, y = regression_tasks(2)
    for seen in (0, 12):
        with pytest.raises(ValueError, match="seen must lie between 1 and 11"):
            adapted_loss(torch.zeros(6, dtype=torch.float64), x, y, seen, 1)
    with pytest.raises(ValueError, match="counts >= 1"):
        regression_tasks(0)
