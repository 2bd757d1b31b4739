"""Both sides of every equation of notebook 02, in float64."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss

from nlcore.memory import hebbian
from nlcore.optimizers import SGD
from nlcore.surprise import layer_writes, local_surprise, votes

D_OUT, D_IN = 5, 7
Loss = Callable[[Tensor], Tensor]  # of an answer, to one number


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def some_losses() -> list[Loss]:
    label, target = torch.randint(D_OUT, ()), normal(D_OUT)
    return [
        lambda y: cross_entropy(y, label),
        lambda y: mse_loss(y, target, reduction="sum") / 2,
        lambda y: (y - target).abs().pow(3).sum(),
    ]


def gradient(function: Callable[[Tensor], Tensor], at: Tensor) -> Tensor:
    point = at.clone().requires_grad_()
    (found,) = torch.autograd.grad(function(point), point)
    return found


def slope(function: Callable[[Tensor], Tensor], at: Tensor, step: float = 1e-6) -> Tensor:
    """The gradient by central differences: no autograd, no formula."""
    found = torch.zeros_like(at)
    for place in range(at.numel()):
        move = torch.zeros_like(at)
        move.view(-1)[place] = step
        found.view(-1)[place] = (function(at + move) - function(at - move)) / (2 * step)
    return found


def lowest(function: Callable[[Tensor], Tensor], shape: tuple[int, ...]) -> Tensor:
    """The point where `function` is lowest, found by a search from a random start."""
    point = normal(*shape).requires_grad_()
    search = torch.optim.LBFGS([point], max_iter=200, tolerance_grad=1e-13, line_search_fn="strong_wolfe")

    def value() -> Tensor:
        search.zero_grad()
        height = function(point)
        height.backward()
        return height

    search.step(value)
    return point.detach()


def sgd_step(W: Tensor, loss: Callable[[Tensor], Tensor], lr: float) -> Tensor:
    """One step of the library's optimizer on loss(W)."""
    weights = nn.Parameter(W.clone())
    optimizer = SGD([weights], lr=lr)
    loss(weights).backward()
    optimizer.step()
    return weights.detach()


def close(left: Tensor, right: Tensor, tolerance: float = 1e-12) -> None:
    torch.testing.assert_close(left, right, rtol=tolerance, atol=tolerance)


@pytest.fixture(params=range(4), autouse=True)
def draw(request: pytest.FixtureRequest) -> float:
    """Seed each draw, and return a step size for it."""
    torch.manual_seed(request.param)
    return [0.01, 0.1, 0.5, 2.0][request.param]


@pytest.mark.equation("02.1")
def test_surprise_is_softmax_less_onehot() -> None:
    y, label = 3 * normal(D_OUT), int(torch.randint(D_OUT, ()))
    right = y.exp() / y.exp().sum()
    right[label] -= 1
    close(gradient(lambda at: cross_entropy(at, torch.tensor(label)), y), right)
    close(local_surprise(y, torch.tensor(label)), right)
    close(slope(lambda at: -torch.log_softmax(at, 0)[label], y), right, 1e-8)


@pytest.mark.equation("02.2")
def test_gradient_of_a_linear_layer_is_surprise_times_input() -> None:
    for loss in some_losses():
        W, x = normal(D_OUT, D_IN), normal(D_IN)
        u = gradient(loss, W @ x)
        close(gradient(lambda M, x=x, loss=loss: loss(M @ x), W), torch.outer(u, x))


@pytest.mark.equation("02.3")
def test_a_write_moves_the_answer_of_every_key(draw: float) -> None:
    W, x, u, k = normal(D_OUT, D_IN), normal(D_IN), normal(D_OUT), normal(D_IN)
    close(hebbian(W, x, -u, draw) @ k, W @ k - draw * (x @ k) * u)
    across = k - (k @ x) / (x @ x) * x
    close(hebbian(W, x, -u, draw) @ across, W @ across)


def written_one_by_one(lr: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Train a layer with the library's optimizer; return W_0, W_T, the keys and the surprises."""
    start, keys, labels = normal(D_OUT, D_IN), normal(30, D_IN), torch.randint(D_OUT, (30,))
    W, surprises = start, []
    for x, label in zip(keys, labels, strict=True):
        surprises.append(gradient(lambda y, label=label: cross_entropy(y, label), W @ x))
        W = sgd_step(W, lambda M, x=x, label=label: cross_entropy(M @ x, label), lr)
    return start, W, keys, torch.stack(surprises)


@pytest.mark.equation("02.4")
def test_trained_weights_are_the_sum_of_the_writes(draw: float) -> None:
    start, W, keys, surprises = written_one_by_one(draw)
    close(W, start - draw * sum(torch.outer(u, x) for u, x in zip(surprises, keys, strict=True)))


@pytest.mark.equation("02.5")
def test_answer_is_a_sum_over_the_written_images(draw: float) -> None:
    start, W, keys, surprises = written_one_by_one(draw)
    q = normal(D_IN)
    close(W @ q, start @ q - draw * sum((x @ q) * u for u, x in zip(surprises, keys, strict=True)))
    close(W @ q, start @ q + votes(keys, surprises, draw, q).sum(0))


@pytest.mark.equation("NL 1")
def test_gradient_descent(draw: float) -> None:
    for loss in some_losses():
        W, x = normal(D_OUT, D_IN), normal(D_IN)
        right = W - draw * slope(lambda M, x=x, loss=loss: loss(M @ x), W)
        close(sgd_step(W, lambda M, x=x, loss=loss: loss(M @ x), draw), right, 1e-6)


@pytest.mark.equation("NL 2")
def test_a_step_is_the_lowest_point_of_line_plus_price(draw: float) -> None:
    for loss in some_losses():
        W, x = normal(D_OUT, D_IN), normal(D_IN)
        g = gradient(lambda M, x=x, loss=loss: loss(M @ x), W)
        right = lowest(lambda M, g=g, W=W: (g * M).sum() + (M - W).square().sum() / (2 * draw), W.shape)
        close(sgd_step(W, lambda M, x=x, loss=loss: loss(M @ x), draw), right, 1e-9)


@pytest.mark.equation("NL 3")
def test_many_steps_answer_one_question_about_the_past(draw: float) -> None:
    start = W = normal(D_OUT, D_IN)
    total = torch.zeros_like(W)
    for _ in range(20):
        x, label = normal(D_IN), torch.randint(D_OUT, ())
        total += gradient(lambda M, x=x, label=label: cross_entropy(M @ x, label), W)
        W = sgd_step(W, lambda M, x=x, label=label: cross_entropy(M @ x, label), draw)
    right = lowest(lambda M: (total * M).sum() + (M - start).square().sum() / (2 * draw), start.shape)
    close(W, right, 1e-9)
    close(W, start - draw * total)


@pytest.mark.equation("NL 7")
def test_gradient_descent_goes_to_the_weights_with_the_smallest_loss() -> None:
    keys, targets = normal(40, D_IN), normal(40, D_OUT)

    def loss(M: Tensor) -> Tensor:
        return mse_loss(keys @ M.T, targets, reduction="sum") / 2

    W = normal(D_OUT, D_IN)
    lr = 1.0 / float(torch.linalg.matrix_norm(keys, 2)) ** 2
    for _ in range(1000):
        W = sgd_step(W, loss, lr)
    right = torch.linalg.lstsq(keys, targets).solution.T
    close(W, right, 1e-10)
    assert all(loss(right + 0.1 * normal(D_OUT, D_IN)) > loss(right) for _ in range(10))


@pytest.mark.equation("NL 8")
def test_one_step_is_one_write_of_the_surprise_turned_round(draw: float) -> None:
    for loss in some_losses():
        W, x = normal(D_OUT, D_IN), normal(D_IN)
        u = gradient(loss, W @ x)
        left = sgd_step(W, lambda M, x=x, loss=loss: loss(M @ x), draw)
        close(left, W - draw * torch.einsum("i,j->ij", u, x))
        close(left, W + draw * (-u).unsqueeze(1) @ x.unsqueeze(0))
        close(left, hebbian(W, x, -u, draw))


@pytest.mark.equation("NL 9")
def test_a_write_is_the_best_answer_to_its_question(draw: float) -> None:
    W, x, previous, u = normal(D_OUT, D_IN), normal(D_IN), normal(D_IN), normal(D_OUT)

    def best(key: Tensor, value: Tensor) -> Tensor:
        return lowest(lambda M: (M @ key) @ value + (M - W).square().sum() / (2 * draw), W.shape)

    write = sgd_step(W, lambda M: (M @ x) @ u, draw)
    close(write, best(x, u), 1e-9)
    # The two misprints: the previous key in the second form of Eq. 9, and the sign of Eq. 19.
    assert (write - best(previous, u)).abs().max() > 1e-3
    close(W - (write - W), best(x, -u), 1e-9)


def deep_network() -> tuple[nn.Sequential, Tensor, Loss]:
    layers = [nn.Linear(D_IN, 6, bias=False), nn.Tanh(), nn.Linear(6, 8, bias=False), nn.ReLU()]
    net = nn.Sequential(*layers, nn.Linear(8, D_OUT, bias=False)).double()
    label = torch.randint(D_OUT, ())
    return net, normal(D_IN), lambda y: cross_entropy(y, label)


@pytest.mark.equation("NL 29")
def test_each_layer_meets_its_key_and_its_surprise() -> None:
    net, x, loss = deep_network()
    with torch.no_grad():
        z1 = net[0](x)
        z2 = net[2](torch.tanh(z1))
    W2, W3 = net[2].weight.detach(), net[4].weight.detach()
    delta3 = gradient(loss, W3 @ z2.clamp(min=0))
    delta2 = torch.autograd.functional.jacobian(torch.relu, z2).T @ (W3.T @ delta3)
    delta1 = torch.diag(1 - torch.tanh(z1) ** 2).T @ (W2.T @ delta2)
    keys = [x, torch.tanh(z1), z2.clamp(min=0)]
    loss(net(x)).backward()
    writes = layer_writes(net, x, loss)
    for weight, key, delta, write in zip(net.parameters(), keys, (delta1, delta2, delta3), writes, strict=True):
        assert weight.grad is not None
        close(weight.grad, torch.outer(delta, key))
        close(write.surprise, delta)
        close(write.key, key)


@pytest.mark.equation("NL 31")
def test_each_layer_answers_its_own_question(draw: float) -> None:
    net, x, loss = deep_network()
    before = [weight.detach().clone() for weight in net.parameters()]
    writes = layer_writes(net, x, loss)
    optimizer = SGD(net.parameters(), lr=draw)
    loss(net(x)).backward()
    optimizer.step()
    for after, W, write in zip(net.parameters(), before, writes, strict=True):
        right = lowest(
            lambda M, W=W, write=write: (M @ write.key) @ write.surprise + (M - W).square().sum() / (2 * draw), W.shape
        )
        close(after.detach(), right, 1e-9)
