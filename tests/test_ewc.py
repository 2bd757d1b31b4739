"""Elastic weight consolidation, held against closed forms, plain loops and autograd."""

from __future__ import annotations

import io

import pytest
import torch
from torch import Tensor, nn

from nlcore.continual import EWC, fisher
from nlcore.stacked import StackedMLP

D, K, N = 4, 3, 12


@pytest.fixture
def x() -> Tensor:
    return torch.randn(N, D, dtype=torch.float64)


@pytest.fixture
def y() -> Tensor:
    return torch.randint(K, (N,))


@pytest.fixture
def net() -> nn.Module:
    return nn.Sequential(nn.Linear(D, 5), nn.Tanh(), nn.Linear(5, K)).double()


def by_a_plain_loop(model: nn.Module, x: Tensor, y: Tensor | None) -> dict[str, Tensor]:
    """One example, one label at a time, as the formula says."""
    names, weights = zip(*model.named_parameters(), strict=True)
    total = {name: torch.zeros_like(W) for name, W in zip(names, weights, strict=True)}
    for n in range(len(x)):
        log_p = model(x[n : n + 1])[0].log_softmax(-1)
        for k in range(len(log_p)):
            weight = log_p[k].exp().item() if y is None else float(k == y[n])
            for name, slope in zip(names, torch.autograd.grad(log_p[k], weights, retain_graph=True), strict=True):
                total[name] += weight * slope.square() / len(x)
    return total


@pytest.mark.parametrize("labels", [False, True])
@pytest.mark.parametrize("chunk", [1, 5, 100])
def test_the_fisher_equals_the_plain_loop(net: nn.Module, x: Tensor, y: Tensor, labels: bool, chunk: int) -> None:
    asked = y if labels else None
    found, expected = fisher(net, x, asked, chunk=chunk), by_a_plain_loop(net, x, asked)
    assert list(found) == [name for name, _ in net.named_parameters()]
    for name, F in found.items():
        torch.testing.assert_close(F, expected[name], rtol=1e-11, atol=1e-14)


def test_the_fisher_of_a_linear_softmax_model_in_closed_form(x: Tensor) -> None:
    model = nn.Linear(D, K).double()
    p = (
        model(x).softmax(-1).detach()
    )  # d log p_k / d W_cj = ([k = c] - p_c) x_j, its mean square is p_c (1 - p_c) x_j^2
    found = fisher(model, x)
    torch.testing.assert_close(found["weight"], (p * (1 - p)).mT @ x.square() / N, rtol=1e-12, atol=0)
    torch.testing.assert_close(found["bias"], (p * (1 - p)).mean(0), rtol=1e-12, atol=0)


def test_the_empirical_fisher_of_a_linear_softmax_model_in_closed_form(x: Tensor, y: Tensor) -> None:
    model = nn.Linear(D, K).double()
    errors = (torch.eye(K, dtype=torch.float64)[y] - model(x).softmax(-1)).detach()
    torch.testing.assert_close(fisher(model, x, y)["weight"], errors.square().mT @ x.square() / N, rtol=1e-12, atol=0)


def test_the_two_fishers_agree_on_labels_that_the_model_draws(x: Tensor) -> None:
    model = nn.Linear(D, K).double()
    many = x.repeat(4000, 1)
    drawn = model(many).softmax(-1).multinomial(1).squeeze(-1)
    torch.testing.assert_close(fisher(model, many, drawn, chunk=4000), fisher(model, x), rtol=0.05, atol=1e-3)


def test_only_the_allowed_outputs_count(net: nn.Module, x: Tensor) -> None:
    allowed = torch.tensor([True, False, True])
    head = nn.Linear(5, 2).double()
    head.load_state_dict({"weight": net[2].weight[allowed], "bias": net[2].bias[allowed]})
    smaller = nn.Sequential(net[0], net[1], head)
    for labels, among in ((None, None), (torch.zeros(N, dtype=torch.int64), torch.zeros(N, dtype=torch.int64))):
        found, expected = fisher(net, x, labels, allowed=allowed), fisher(smaller, x, among)
        torch.testing.assert_close(found["0.weight"], expected["0.weight"])
        torch.testing.assert_close(found["2.weight"][allowed], expected["2.weight"])
        assert (found["2.weight"][1] == 0).all()


def test_runs_side_by_side_get_the_numbers_they_would_get_alone(x: Tensor) -> None:
    both = StackedMLP((D, 5, K), seeds=[3, 8], settings=2, dtype=torch.float64)
    with torch.no_grad():
        both.settings[1].mul_(1.5)
    found = fisher(both, x)
    for r, seed in enumerate([3, 8]):
        alone = StackedMLP((D, 5, K), seeds=[seed], dtype=torch.float64)
        torch.testing.assert_close(found["settings.0"][r], fisher(alone, x)["settings.0"][0])
    assert not torch.allclose(found["settings.0"], found["settings.1"])


def test_the_model_is_left_as_it_was(net: nn.Module, x: Tensor) -> None:
    model = nn.Sequential(net, nn.Dropout(0.5)).train()
    net[0].bias.requires_grad_(False)
    first, second = fisher(model, x), fisher(model, x)
    assert model.training and all(W.grad is None for W in model.parameters())
    assert "0.0.bias" not in first
    torch.testing.assert_close(first, second, rtol=0, atol=0)  # no dropout while it is measured


def move(net: nn.Module) -> None:
    with torch.no_grad():
        for W in net.parameters():
            W.add_(torch.randn_like(W), alpha=0.3)


@pytest.mark.parametrize("retain", [None, 1.0, 0.4])
def test_the_penalty_and_its_gradient_equal_the_formula(net: nn.Module, x: Tensor, retain: float | None) -> None:
    ewc, held = EWC(net, strength=7.0, retain=retain), []
    for part in (x[:6], x[6:]):
        ewc.remember(part)
        held.append((fisher(net, part), {name: W.detach().clone() for name, W in net.named_parameters()}))
        move(net)
    if retain is not None:
        merged = {name: retain * held[0][0][name] + held[1][0][name] for name in held[0][0]}
        held = [(merged, held[1][1])]
    assert ewc.held == len(held)
    penalty = ewc.penalty()
    penalty.backward()
    value = 0.0
    for name, W in net.named_parameters():
        value += sum(3.5 * (F[name] * (W.detach() - old[name]) ** 2).sum().item() for F, old in held)
        expected = sum(7.0 * F[name] * (W.detach() - old[name]) for F, old in held)
        torch.testing.assert_close(W.grad, expected, rtol=1e-12, atol=1e-14)
    assert penalty.item() == pytest.approx(value, rel=1e-12)


def test_nothing_is_held_before_the_first_task(net: nn.Module, x: Tensor) -> None:
    ewc = EWC(net)
    assert ewc.penalty().item() == 0.0 and ewc.stiffness() == 0.0 and ewc.held == 0
    assert bool(ewc)  # `if ewc:` asks whether there is one, not whether it holds something
    ewc.remember(x)
    assert ewc.penalty().item() == 0.0 and ewc.stiffness() > 0.0  # held, and not yet moved


def test_descent_is_stable_below_two_over_the_stiffness(net: nn.Module, x: Tensor) -> None:
    ewc = EWC(net, strength=50.0)
    ewc.remember(x)
    start = {name: W.detach().clone() for name, W in net.named_parameters()}
    for share, stable in ((1.9, True), (2.1, False)):
        with torch.no_grad():
            for name, W in net.named_parameters():
                W.copy_(start[name] + 0.1)
        before = ewc.penalty().item()
        optimizer = torch.optim.SGD(net.parameters(), lr=share / ewc.stiffness())
        for _ in range(200):
            optimizer.zero_grad()
            ewc.penalty().backward()
            optimizer.step()
        assert (ewc.penalty().item() < before) == stable


@pytest.mark.parametrize("lr", [0.0, 0.1, 1e6])
def test_a_pull_goes_to_the_minimum_and_never_overshoots(net: nn.Module, x: Tensor, lr: float) -> None:
    ewc = EWC(net, strength=50.0)
    for part in (x[:6], x[6:]):
        ewc.remember(part)
        move(net)
    before, penalty = {name: W.detach().clone() for name, W in net.named_parameters()}, ewc.penalty().item()
    ewc.pull(lr)
    assert ewc.penalty().item() <= penalty
    ewc.penalty().backward()
    for name, W in net.named_parameters():  # at the minimum W' - W + lr * gradient of the penalty at W' is 0
        torch.testing.assert_close(W.detach() + lr * W.grad, before[name], rtol=1e-7, atol=1e-9 * (1 + lr))
    EWC(net).pull(0.1)  # nothing is held yet: nothing moves


@pytest.mark.parametrize("retain", [None, 0.5])
def test_saved_and_loaded_it_holds_the_same(net: nn.Module, x: Tensor, retain: float | None) -> None:
    ewc = EWC(net, retain=retain)
    ewc.remember(x[:6])
    move(net)
    ewc.remember(x[6:])
    file = io.BytesIO()
    torch.save(ewc.state_dict(), file)
    file.seek(0)
    move(net)
    other = EWC(net, retain=retain)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert other.held == ewc.held and other.penalty().item() == ewc.penalty().item() > 0.0
    ewc.remember(x)  # the copy does not follow
    assert other.held == (2 if retain is None else 1)
    with pytest.raises(ValueError, match="saved state is of a model with the weights"):
        EWC(nn.Linear(2, 2)).load_state_dict(ewc.state_dict())


def test_bad_input_is_refused_with_words(net: nn.Module, x: Tensor, y: Tensor) -> None:
    with pytest.raises(ValueError, match="strength must be a finite number >= 0, got -1"):
        EWC(net, strength=-1.0)
    with pytest.raises(ValueError, match=r"retain must lie in \[0, 1\].*got 1.5"):
        EWC(net, retain=1.5)
    with pytest.raises(ValueError, match="at least 1 example, and y as long as x or None, got 12 and 3"):
        fisher(net, x, y[:3])
    with pytest.raises(ValueError, match="at least 1 example"):
        fisher(net, x[:0])
