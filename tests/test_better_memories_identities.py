"""What each better memory computes, against the plain loop of its equation, in float64."""

import math

import pytest
import torch
from torch import Tensor, nn

from nlcore.memory import delta, dgd, hebbian
from nlcore.optimizers import M3, DeepMomentum, DeltaMomentum, Momentum, MultiscaleMomentum, Muon, newton_schulz

F64 = torch.float64


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=F64, generator=torch.Generator().manual_seed(seed))


def feed(optimizer_of, gradients: Tensor, start: Tensor | None = None) -> tuple[nn.Parameter, dict]:
    """Return the weight and its memories after all gradients."""
    weight = nn.Parameter(torch.zeros_like(gradients[0]) if start is None else start.clone())
    optimizer = optimizer_of([weight])
    for g in gradients:
        weight.grad = g.clone()
        optimizer.step()
    return weight.detach(), optimizer.state[weight]


@pytest.mark.parametrize("key", ["unit", "gradient"])
def test_delta_momentum_is_its_loop(key: str) -> None:
    gradients = 0.2 * numbers(12, 3, 4)
    W, state = feed(lambda p: DeltaMomentum(p, lr=0.1, beta=0.8, erase=0.7, key=key), gradients)
    m, V = torch.zeros(3, 4, dtype=F64), torch.zeros(3, 4, dtype=F64)
    for g in gradients:
        k = g / g.norm() if key == "unit" else g
        m = m @ (0.8 * torch.eye(4, dtype=F64) - 0.7 * k.T @ k) + g
        V = V - 0.1 * m
    torch.testing.assert_close(state["m"], m, rtol=1e-13, atol=1e-14)
    torch.testing.assert_close(W, V, rtol=1e-13, atol=1e-14)


def test_delta_momentum_without_erasing_is_momentum() -> None:
    gradients = numbers(10, 3, 4)
    W, _ = feed(lambda p: DeltaMomentum(p, lr=0.1, beta=0.8, erase=0.0), gradients)
    V, _ = feed(lambda p: Momentum(p, lr=0.1, beta=0.8), gradients)
    torch.testing.assert_close(W, V, rtol=1e-13, atol=1e-14)


def test_the_key_gradient_is_a_gradient_step_on_the_squared_objective() -> None:
    """The gradient of 1/2 |m g^T - P|^2 in m is (m g^T - P) g, here for rows g and P the identity's part."""
    m, g = numbers(3, 4, seed=1), numbers(1, 4, seed=2)
    P = numbers(3, 1, seed=3)
    variable = m.clone().requires_grad_()
    (0.5 * (variable @ g.T - P).square().sum()).backward()
    torch.testing.assert_close(variable.grad, (m @ g.T - P) @ g, rtol=1e-13, atol=1e-14)
    eta = 0.3
    step = m - eta * variable.grad
    torch.testing.assert_close(step, m @ (torch.eye(4, dtype=F64) - eta * g.T @ g) + eta * P @ g, rtol=1e-13, atol=0)


@pytest.mark.parametrize("key", ["unit", "gradient"])
def test_the_memory_stays_bounded_for_huge_gradients(key: str) -> None:
    gradients = 1e6 * numbers(400, 2, 3)
    _, state = feed(lambda p: DeltaMomentum(p, lr=0.0, beta=0.9, erase=1.0, key=key), gradients)
    assert state["m"].norm() < 20 * gradients.norm(dim=(1, 2)).max()


@pytest.mark.parametrize("kind", [Momentum, DeltaMomentum])
def test_a_preconditioner_writes_p_g(kind) -> None:
    gradients, scale = numbers(8, 3, 4), numbers(3, 4, seed=5).abs()
    extra = {"erase": 0.0} if kind is DeltaMomentum else {}
    W, _ = feed(lambda p: kind(p, lr=0.1, beta=0.8, preconditioner=lambda g: scale * g, **extra), gradients)
    V, _ = feed(lambda p: Momentum(p, lr=0.1, beta=0.8), scale * gradients)
    torch.testing.assert_close(W, V, rtol=1e-13, atol=1e-14)
    with pytest.raises(ValueError, match="the preconditioner turned shape"):
        feed(lambda p: kind(p, preconditioner=lambda g: g[0]), gradients)


@pytest.mark.parametrize("objective", ["squared", "dot", "ones"])
def test_deep_momentum_writes_by_gradient_descent_on_its_objective(objective: str) -> None:
    gradients = numbers(6, 5, 4)
    settings = {"memory_lr": 0.3, "retain": 0.9, "hidden": 7, "objective": objective}
    W, state = feed(lambda p: DeepMomentum(p, lr=0.1, **settings), gradients)
    A = torch.zeros(4, 7, dtype=F64)
    B = torch.randn(7, 4, generator=torch.Generator().manual_seed(0), dtype=F64) / 2
    V = torch.zeros(5, 4, dtype=F64)
    for g in gradients:
        size = g.square().sum(1).mean().sqrt()
        u = g / size
        A.requires_grad_(), B.requires_grad_()
        y = torch.tanh(u @ B.T) @ A.T
        each = {"squared": 0.5 * (y + u).square().sum(1), "dot": (y * u).sum(1), "ones": y.sum(1)}[objective]
        into_A, into_B = torch.autograd.grad(each.mean(), (A, B))
        A, B = (0.9 * A - 0.3 * into_A).detach(), (B - 0.3 * into_B).detach()
        V = V + 0.1 * size * torch.tanh(u @ B.T) @ A.T
    torch.testing.assert_close(state["A"], A, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(W, V, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize("adjust_lr", ["original", "match_rms_adamw", None])
def test_muon_is_its_loop(nesterov: bool, adjust_lr: str | None) -> None:
    gradients, start = numbers(6, 5, 3), numbers(5, 3, seed=4)
    settings = {"lr": 0.1, "beta": 0.8, "weight_decay": 0.2, "nesterov": nesterov, "adjust_lr": adjust_lr}
    W, _ = feed(lambda p: Muon(p, **settings), gradients, start)
    factor = {"original": math.sqrt(5 / 3), "match_rms_adamw": 0.2 * math.sqrt(5), None: 1.0}[adjust_lr]
    m, V = torch.zeros(5, 3, dtype=F64), start
    for g in gradients:
        m = 0.8 * m + 0.2 * g
        read = 0.8 * m + 0.2 * g if nesterov else m
        V = (1 - 0.1 * 0.2) * V - 0.1 * factor * newton_schulz(read)
    torch.testing.assert_close(W, V, rtol=1e-12, atol=1e-13)


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="torch.optim.Muon came with torch 2.9")
@pytest.mark.parametrize("adjust_lr", ["original", "match_rms_adamw"])
@pytest.mark.parametrize("shape", [(8, 5), (5, 8), (6, 6)])
def test_muon_in_bfloat16_is_torch_s_bit_for_bit(adjust_lr: str, shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    start = torch.randn(shape)
    ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    a = Muon([ours], lr=0.05, beta=0.9, weight_decay=0.1, ns_dtype=torch.bfloat16, adjust_lr=adjust_lr)
    b = torch.optim.Muon([theirs], lr=0.05, momentum=0.9, weight_decay=0.1, adjust_lr_fn=adjust_lr)
    for _ in range(25):
        ours.grad = torch.randn(shape)
        theirs.grad = ours.grad.clone()
        a.step()
        b.step()
        assert torch.equal(ours, theirs)


def test_float32_is_nearer_to_the_exact_answer_than_bfloat16() -> None:
    M = numbers(20, 30)
    exact = newton_schulz(M)
    single, half = ((newton_schulz(M, dtype=t).double() - exact).norm() for t in (torch.float32, torch.bfloat16))
    assert single < 1e-4 * exact.norm() and half > 100 * single


@pytest.mark.parametrize("period", [1, 3, 4])
def test_slow_and_fast_momentum_is_its_loop(period: int) -> None:
    gradients = numbers(11, 4)
    settings = {"beta": 0.7, "slow_beta": 0.6, "alpha": 0.5, "period": period}
    W, state = feed(lambda p: MultiscaleMomentum(p, lr=0.1, **settings), gradients)
    m, s, V = torch.zeros(4, dtype=F64), torch.zeros(4, dtype=F64), torch.zeros(4, dtype=F64)
    for t, g in enumerate(gradients):
        if t and t % period == 0:
            s = 0.6 * s + 0.4 * gradients[t - period : t].mean(0)
        m = 0.7 * m + 0.3 * g
        V = V - 0.1 * (m + 0.5 * s)
    torch.testing.assert_close(state["s"], s, rtol=1e-13, atol=1e-15)
    torch.testing.assert_close(W, V, rtol=1e-13, atol=1e-15)


def test_without_the_slow_memory_it_is_a_fading_mean() -> None:
    gradients = numbers(9, 4)
    W, _ = feed(lambda p: MultiscaleMomentum(p, lr=0.1, beta=0.7, alpha=0.0), gradients)
    V, _ = feed(lambda p: Momentum(p, lr=0.1 * 0.3, beta=0.7), gradients)
    torch.testing.assert_close(W, V, rtol=1e-13, atol=1e-15)


def m3_loop(gradients: Tensor, period: int, literal: bool, second_moment: bool = True) -> Tensor:
    """Algorithm 1 as a plain loop."""
    beta1, beta2, beta3, alpha, lr = 0.9, 0.95, 0.8, 0.3, 0.1
    M1, M2, V, O2, W = (torch.zeros_like(gradients[0]) for _ in range(5))
    for t, g in enumerate(gradients):
        if t and t % period == 0:
            chunk = gradients[t - period : t]
            M2 = M2 + beta3 * chunk.sum(0) if literal else beta3 * M2 + (1 - beta3) * chunk.mean(0)
            O2 = newton_schulz(M2)
        M1 = M1 + beta1 * g if literal else beta1 * M1 + (1 - beta1) * g
        V = V + beta2 * g * g if literal else beta2 * V + (1 - beta2) * g * g
        scale = V.sqrt() if literal else (V / (1 - beta2 ** (t + 1))).sqrt()
        move = newton_schulz(M1) + alpha * O2
        W = W - lr * (move / (scale + 1e-8) if second_moment else move)
    return W


@pytest.mark.parametrize("mode", ["literal", "ema"])
@pytest.mark.parametrize("second_moment", [True, False])
@pytest.mark.parametrize("period", [1, 4])
def test_m3_is_algorithm_one(mode: str, second_moment: bool, period: int) -> None:
    gradients = numbers(11, 3, 5)
    settings = {"betas": (0.9, 0.95, 0.8), "alpha": 0.3, "period": period, "second_moment": second_moment}
    W, _ = feed(lambda p: M3(p, lr=0.1, mode=mode, **settings), gradients)
    V = m3_loop(gradients, period, mode == "literal", second_moment)
    torch.testing.assert_close(W, V, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("steps", [3, 4, 5, 8, 10])
def test_the_two_printed_memories_differ_by_the_sum_of_the_chunk(steps: int) -> None:
    """M1 / beta1 - M2 / beta3 is the sum of the gradients since the last slow write."""
    gradients = numbers(steps, 3, 5)
    _, state = feed(lambda p: M3(p, mode="literal", betas=(0.9, 0.99, 0.8), period=4), gradients)
    since = gradients[4 * ((steps - 1) // 4) :].sum(0)
    torch.testing.assert_close(state["M1"] / 0.9 - state["M2"] / 0.8, since, rtol=1e-12, atol=1e-13)


def test_in_the_printed_form_beta1_and_beta3_have_no_effect() -> None:
    gradients = numbers(9, 3, 5)
    ends = [
        feed(lambda p, b=b: M3(p, mode="literal", betas=(b[0], 0.99, b[1]), period=4), gradients)[0]
        for b in ((0.9, 0.8), (0.1, 0.3))
    ]
    torch.testing.assert_close(ends[0], ends[1], rtol=1e-9, atol=1e-11)


def test_the_exact_correction_of_dgd_is_the_delta_rule_with_its_own_step() -> None:
    M, k, v = numbers(3, 4), numbers(4, seed=1), numbers(3, seed=2)
    eta = 0.7
    step = eta / (1 + eta * k.square().sum())
    torch.testing.assert_close(dgd(M, k, v, lr=eta), hebbian(M, k, v - M @ k, lr=step), rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize(("retain", "lr"), [(1.0, 0.3), (0.9, 0.4), (0.95, 0.2)])
def test_one_pair_written_again_and_again_settles_where_the_algebra_says(retain: float, lr: float) -> None:
    """(92) with its sign corrected, (93), and (92) as printed, for a linear memory and a key of length one."""
    k, v = numbers(4), numbers(3, seed=1)
    k = k / k.norm()
    dot, squared, printed = (torch.zeros(3, 4, dtype=F64) for _ in range(3))
    for _ in range(400):
        dot = delta(dot, k, v, lr=lr, retain=retain)
        squared = delta(squared, k, v - squared @ k, lr=lr, retain=retain)  # the answer is taken out twice
        printed = delta(printed, k, -v, lr=lr, retain=retain)
    torch.testing.assert_close(dot @ k, lr / (1 - retain + lr) * v, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(squared @ k, lr / (1 - retain + 2 * lr) * v, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(printed, -dot, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("lr", "settles"), [(0.94, True), (0.96, False)])
def test_the_squared_memory_is_stable_only_for_steps_below_its_bound(lr: float, settles: bool) -> None:
    """|alpha - 2 eta| < 1 is the bound of (93); across the key the memory only fades by alpha."""
    k, v, retain = numbers(4), numbers(3, seed=1), 0.9
    k, across = k / k.norm(), torch.linalg.svd(k[None] / k.norm()).Vh[1]
    M = numbers(3, 4, seed=2)
    for step in range(1, 501):
        M = delta(M, k, v - M @ k, lr=lr, retain=retain)
        if step == 20:
            torch.testing.assert_close(M @ across, retain**20 * numbers(3, 4, seed=2) @ across, rtol=1e-9, atol=1e-12)
    assert (abs(retain - 2 * lr) < 1) == settles == bool((M @ k).norm() < 10)
