"""Both sides of every equation of notebook 07, in float64."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from nlcore.continual import EWC, NearestClassMean, TwoRates, WeightAverages
from nlcore.metrics import average_accuracy, forgetting, plasticity

SEEDS = range(4)


def draws(seed: int, *size: int) -> Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def accuracies(seed: int, T: int) -> Tensor:
    return torch.rand(T, T, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def walk(optimizer: TwoRates, W: Tensor, gradients: Tensor) -> None:
    for g in gradients:
        W.grad = g.clone()
        optimizer.step()


@pytest.mark.equation("07.1")
@pytest.mark.parametrize("seed", SEEDS)
def test_average_accuracy_and_plasticity(seed: int) -> None:
    R, T = accuracies(seed, 5), 5
    kept = sum(R[T - 1, j].item() for j in range(T)) / T
    learned = sum(R[i, i].item() for i in range(T)) / T
    assert average_accuracy(R).dtype == torch.float64
    assert average_accuracy(R).item() == pytest.approx(kept, rel=1e-13)
    assert plasticity(R).item() == pytest.approx(learned, rel=1e-13)


@pytest.mark.equation("07.2")
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("T", [2, 5])
def test_forgetting(seed: int, T: int) -> None:
    R = accuracies(seed, T)
    falls = [max(R[i, j].item() for i in range(T - 1)) - R[T - 1, j].item() for j in range(T - 1)]
    assert forgetting(R).dtype == torch.float64
    assert forgetting(R).item() == pytest.approx(sum(falls) / (T - 1), rel=1e-12)


@pytest.mark.equation("07.3")
@pytest.mark.parametrize("seed", SEEDS)
def test_a_step_with_two_rates(seed: int) -> None:
    """The optimizer, against the sum over all gradients in which the fast part of each has faded by its age."""
    d, eta, eta_slow = 0.1, 0.3, 0.05
    start, gradients = draws(seed, 3), draws(seed + 10, 20, 3)
    W = start.clone().requires_grad_()
    optimizer = TwoRates([W], lr=eta, slow_lr=eta_slow, decay=d, period=1)
    walk(optimizer, W, gradients)
    fast = -eta * sum((1 - d) ** age * g for age, g in enumerate(gradients.flip(0)))
    slow = start - eta_slow * gradients.sum(0)
    torch.testing.assert_close(optimizer.parts()["fast"][0], fast, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(optimizer.parts()["slow"][0], slow, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(W.detach(), slow + fast, rtol=1e-12, atol=1e-13)


@pytest.mark.equation("07.4")
@pytest.mark.parametrize("n", [1, 7, 300])
def test_rest(n: int) -> None:
    """The weights after `rest`, against the levels as they were before it."""
    d = 0.02
    W = draws(1, 4).requires_grad_()
    optimizer = TwoRates([W], lr=0.3, slow_lr=0.05, decay=d, period=1)
    walk(optimizer, W, draws(2, 9, 4))
    slow, fast = (optimizer.parts()[name][0].clone() for name in ("slow", "fast"))
    optimizer.rest(n)
    torch.testing.assert_close(W.detach(), slow + (1 - d) ** n * fast, rtol=1e-12, atol=1e-13)


@pytest.mark.equation("07.5")
@pytest.mark.parametrize("eta", [0.4, 0.1])
@pytest.mark.parametrize("d", [0.0, 0.02, 0.3])
def test_the_slow_level_takes_over_at_the_rate_mu(d: float, eta: float) -> None:
    """A number that learns a goal, watched late, against the formula."""
    eta_slow, goal = 0.06, 2.0
    W = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    optimizer = TwoRates([W], lr=eta, slow_lr=eta_slow, decay=d, period=1)
    left = []
    for _ in range(250):
        W.grad = W.detach() - goal
        optimizer.step()
        left.append(goal - optimizer.parts()["slow"][0].item())
    b = d + eta + eta_slow
    mu = (b - math.sqrt(b**2 - 4 * d * eta_slow)) / 2
    assert left[-1] / left[-2] == pytest.approx(1 - mu, abs=1e-8)
    approximately = d * eta_slow / b
    assert mu == pytest.approx(approximately, rel=0.12)


@pytest.mark.equation("07.6")
@pytest.mark.parametrize("horizon", [1, 3, 200])
def test_a_level_of_the_continuum(horizon: int) -> None:
    """The averages of the library, against the weighted sum of all past weights."""
    model = nn.Linear(3, 2).double()
    averages = WeightAverages(model, (horizon,))
    path = [model.weight.detach().clone()]
    for step in range(30):
        with torch.no_grad():
            model.weight.copy_(draws(step, 2, 3))
        averages.update()
        path.append(model.weight.detach().clone())
    keep = 1 - 1 / horizon
    shares = [keep**30, *((1 - keep) * keep ** (30 - t) for t in range(1, 31))]
    expected = sum(share * W for share, W in zip(shares, path, strict=True))
    assert averages.weights_at(horizon)["weight"].dtype == torch.float64
    torch.testing.assert_close(averages.weights_at(horizon)["weight"], expected, rtol=1e-12, atol=1e-13)


@pytest.mark.equation("07.7")
@pytest.mark.parametrize("seed", SEEDS)
def test_the_penalty_of_ewc(seed: int) -> None:
    """The class, against importances found with one backward pass for each example and class."""
    model, x, strength = nn.Linear(3, 4).double(), draws(seed, 6, 3), 7.0
    ewc = EWC(model, strength)
    ewc.remember(x)
    old = model.weight.detach().clone(), model.bias.detach().clone()
    importance = [torch.zeros_like(W) for W in old]
    for one in x:
        for k in range(4):
            log_p = model(one).log_softmax(-1)
            slopes = torch.autograd.grad(log_p[k], [model.weight, model.bias])
            for F, slope in zip(importance, slopes, strict=True):
                F += log_p[k].exp().detach() * slope**2 / len(x)
    with torch.no_grad():
        for W, seed_of in zip(model.parameters(), (50, 51), strict=True):
            W.add_(draws(seed_of, *W.shape))
    moved = [W.detach() - before for W, before in zip(model.parameters(), old, strict=True)]
    expected = strength / 2 * sum((F * m**2).sum() for F, m in zip(importance, moved, strict=True))
    torch.testing.assert_close(ewc.penalty().detach(), expected, rtol=1e-11, atol=1e-13)


def held(weight: float, old: float, F: float, strength: float) -> tuple[nn.ParameterDict, EWC]:
    """One weight that is held at `old` with the importance F."""
    one = [torch.tensor([value], dtype=torch.float64) for value in (weight, F, old)]
    model = nn.ParameterDict({"W": nn.Parameter(one[0])})
    ewc = EWC(model, strength)
    ewc.load_state_dict({"importance": [{"W": one[1]}], "anchor": [{"W": one[2]}]})
    return model, ewc


@pytest.mark.equation("07.8")
@pytest.mark.parametrize("product", [0.3, 1.0, 1.9, 2.1])
def test_a_gradient_step_on_the_penalty(product: float) -> None:
    """Ten steps of torch's own gradient descent, against the tenth power of the factor."""
    lr, F = 0.1, 0.5
    model, ewc = held(2.0, 1.0, F, product / (lr * F))
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    for _ in range(10):
        optimizer.zero_grad()
        ewc.penalty().backward()
        optimizer.step()
    assert model["W"].dtype == torch.float64
    assert model["W"].item() - 1.0 == pytest.approx((1 - product) ** 10, rel=1e-10, abs=1e-14)
    assert ewc.stiffness() * lr == pytest.approx(product)


@pytest.mark.equation("07.9")
@pytest.mark.parametrize("strength", [0.5, 20.0, 1e4])
def test_the_pull_answers_its_question(strength: float) -> None:
    """The class, against a solver that knows nothing of it."""
    lr, F, W, old = 0.1, 0.7, 2.0, -1.0
    model, ewc = held(W, old, F, strength)
    ewc.pull(lr)
    answer = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    solver = torch.optim.LBFGS([answer], line_search_fn="strong_wolfe", tolerance_grad=1e-12, tolerance_change=1e-16)

    def question() -> Tensor:
        solver.zero_grad()
        cost = (answer - W).square() / (2 * lr) + strength / 2 * F * (answer - old).square()
        cost.sum().backward()
        return cost.sum()

    for _ in range(5):
        solver.step(question)
    assert model["W"].item() == pytest.approx(answer.item(), abs=1e-9)


@pytest.mark.equation("07.10")
@pytest.mark.parametrize("seed", SEEDS)
def test_a_mean_written_one_by_one(seed: int) -> None:
    """The class means of the library, against a mean that is corrected by each example."""
    x, y = draws(seed, 30, 4), torch.arange(30) % 3
    means = NearestClassMean(3, 4, dtype=torch.float64)
    means.add(x, y)
    for c in range(3):
        mu = torch.zeros(4, dtype=torch.float64)
        for n, one in enumerate(x[y == c], start=1):
            mu = mu + (one - mu) / n
        torch.testing.assert_close(means.means[c], mu, rtol=1e-12, atol=1e-13)
