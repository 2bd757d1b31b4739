"""DGD: the inputs it listens to, batches of them, and what it does when it has heard nothing."""

import copy

import pytest
import torch
from torch import Tensor, nn

from nlcore.optimizers import DGD, SGD

F64 = torch.float64


def matrix(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=F64, generator=torch.Generator().manual_seed(seed))


def layer_of(W: Tensor) -> nn.Linear:
    layer = nn.Linear(W.shape[1], W.shape[0], bias=False).double()
    with torch.no_grad():
        layer.weight.copy_(W)
    return layer


@pytest.mark.parametrize("rows", [1, 3, 4, 9])  # fewer rows than inputs, and more: two systems of equations
def test_a_batch_solves_the_mean_objective(rows: int) -> None:
    W, x, d, lr = matrix(3, 4), matrix(rows, 4, seed=1), matrix(rows, 3, seed=2), 0.6
    layer = layer_of(W)
    optimizer = DGD(layer.parameters(), lr=lr, model=layer)
    (layer(x) * d).sum(1).mean().backward()
    optimizer.step()
    new = layer.weight.detach().clone().requires_grad_()
    mean = 0.5 * (x @ new.T + d).square().sum(1).mean()
    (mean + (new - W).square().sum() / (2 * lr)).backward()
    assert new.grad is not None and new.grad.abs().max() < 1e-12
    A = x.T @ x / rows
    by_formula = (W - lr * d.T @ x / rows) @ torch.linalg.inv(torch.eye(4, dtype=F64) + lr * A)
    torch.testing.assert_close(layer.weight.detach(), by_formula, rtol=1e-11, atol=1e-13)


def test_leading_axes_and_several_passes_count_as_rows_of_one_batch() -> None:
    x, d = matrix(2, 3, 4, seed=1), matrix(2, 3, 3, seed=2)
    whole, parts = layer_of(matrix(3, 4)), layer_of(matrix(3, 4))
    a, b = DGD(whole.parameters(), lr=0.5, model=whole), DGD(parts.parameters(), lr=0.5, model=parts)
    ((whole(x) * d).sum() / 6).backward()
    for row in range(2):
        ((parts(x[row]) * d[row]).sum() / 6).backward()
    a.step(), b.step()
    torch.testing.assert_close(whole.weight, parts.weight, rtol=1e-12, atol=1e-14)


def test_with_the_dot_product_it_is_gradient_descent_and_needs_no_model() -> None:
    a, b = layer_of(matrix(3, 4)), layer_of(matrix(3, 4))
    first, second = DGD(a.parameters(), lr=0.1, objective="dot"), SGD(b.parameters(), lr=0.1)
    for layer, optimizer in ((a, first), (b, second)):
        layer(matrix(5, 4, seed=3)).square().mean().backward()
        optimizer.step()
    assert torch.equal(a.weight, b.weight)


def test_biases_and_other_parameters_take_a_gradient_step() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3)).double()
    twin = copy.deepcopy(model)
    x = matrix(5, 4)
    optimizer, plain = DGD(model.parameters(), lr=0.1, model=model), SGD(twin.parameters(), lr=0.1)
    for net, step in ((model, optimizer), (twin, plain)):
        net(x)[:, 0].mean().backward()
        step.step()
    assert torch.equal(model[0].bias, twin[0].bias) and torch.equal(model[1].weight, twin[1].weight)
    assert not torch.equal(model[0].weight, twin[0].weight)


def test_a_pass_without_gradients_is_not_heard() -> None:
    a, b = layer_of(matrix(3, 4)), layer_of(matrix(3, 4))
    first, second = DGD(a.parameters(), lr=0.5, model=a), DGD(b.parameters(), lr=0.5, model=b)
    for layer in (a, b):
        layer(matrix(2, 4, seed=1)).sum().backward()
    with torch.no_grad():
        a(100 * matrix(7, 4, seed=2))
    first.step(), second.step()
    assert torch.equal(a.weight, b.weight)


def test_zero_grad_forgets_the_inputs_and_a_step_without_any_is_refused() -> None:
    layer = layer_of(matrix(3, 4))
    optimizer = DGD(layer.parameters(), lr=0.5, model=layer)
    layer(matrix(2, 4)).sum().backward()
    optimizer.zero_grad()
    layer.weight.grad = torch.ones_like(layer.weight)
    before = layer.weight.detach().clone()
    with pytest.raises(RuntimeError, match=r"no input was seen for a weight of shape \(3, 4\): run the forward pass"):
        optimizer.step()
    assert torch.equal(layer.weight, before)


def test_after_a_step_the_inputs_are_forgotten() -> None:
    layer = layer_of(matrix(3, 4))
    optimizer = DGD(layer.parameters(), lr=0.5, model=layer)
    layer(matrix(2, 4)).sum().backward()
    optimizer.step()
    with pytest.raises(RuntimeError, match="no input was seen"):
        optimizer.step()  # the gradient is still there, its inputs are not


def test_unwatch_removes_the_hooks_and_a_dead_optimizer_leaves_none_that_work() -> None:
    layer = layer_of(matrix(3, 4))
    optimizer = DGD(layer.parameters(), lr=0.5, model=layer)
    optimizer.unwatch()
    assert not layer._forward_pre_hooks
    optimizer.watch(layer)
    optimizer.watch(layer)
    assert len(layer._forward_pre_hooks) == 1
    del optimizer
    layer(matrix(2, 4)).sum().backward()  # nobody listens any more


def test_what_it_refuses_at_the_start() -> None:
    layer = layer_of(matrix(3, 4))
    with pytest.raises(ValueError, match="pass model="):
        DGD(layer.parameters(), lr=0.1)
    with pytest.raises(TypeError, match=r"model must be an nn.Module, got list"):
        DGD(layer.parameters(), lr=0.1, model=[layer])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no nn.Linear of the model has a weight that this optimizer moves"):
        DGD(layer.parameters(), lr=0.1, model=nn.Linear(4, 3))


@pytest.mark.parametrize("lr", [1e3, 1e8])
def test_no_step_size_overshoots(lr: float) -> None:
    """With the dot product as outer loss the layer stores the value, however large the step."""
    layer = layer_of(matrix(3, 4))
    optimizer = DGD(layer.parameters(), lr=lr, model=layer)
    x, v = matrix(4, seed=1), matrix(3, seed=2)
    (-(layer(x) @ v)).backward()
    optimizer.step()
    torch.testing.assert_close(layer(x).detach(), v, rtol=0.02, atol=0.02)
