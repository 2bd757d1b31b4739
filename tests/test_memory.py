"""The write rules: each is one step of gradient descent on its inner objective."""

import pytest
import torch
from torch import Tensor

from nlcore.memory import delta, dgd, hebbian, oja, read

D_V, D_K = 5, 7


def draw(seed: int, *lead: int) -> tuple[Tensor, Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    shape = lambda *size: torch.randn(*lead, *size, dtype=torch.float64, generator=random)  # noqa: E731
    return shape(D_V, D_K), shape(D_K), shape(D_V)


def descend(objective, M: Tensor, lr: float) -> Tensor:
    M = M.clone().requires_grad_()
    objective(M).backward()
    return M.detach() - lr * M.grad


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("lr", [0.1, 0.7])
def test_each_rule_is_one_step_of_descent_on_its_objective(seed: int, lr: float) -> None:
    M, k, v = draw(seed)
    objectives = {
        hebbian: lambda W: -(W @ k) @ v,
        delta: lambda W: 0.5 * (W @ k - v).square().sum(),
        oja: lambda W: -(W @ k) @ v + 0.5 * (W.T @ v).square().sum(),
    }
    for rule, objective in objectives.items():
        torch.testing.assert_close(rule(M, k, v, lr=lr), descend(objective, M, lr), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("length", [0.3, 1.0, 2.0])
def test_dgd_is_the_exact_minimiser_for_keys_of_any_length(seed: int, length: float) -> None:
    M, k, v = draw(seed)
    k = k / k.norm() * length
    lr = 0.8
    identity = torch.eye(D_K, dtype=torch.float64)
    best = (torch.outer(v, k) + M / lr) @ torch.linalg.inv(torch.outer(k, k) + identity / lr)
    torch.testing.assert_close(dgd(M, k, v, lr=lr), best, rtol=1e-11, atol=1e-12)


def test_delta_stores_exactly_and_hebbian_adds_up() -> None:
    M, k, v = draw(0)
    k = k / k.norm()
    torch.testing.assert_close(read(delta(M, k, v), k), v, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(read(hebbian(M, k, v), k), v + read(M, k), rtol=1e-12, atol=1e-12)


def test_dgd_never_overshoots() -> None:
    M, k, v = draw(1)
    before = (v - read(M, k)).norm()
    for lr in (0.1, 1.0, 10.0, 1e6):
        assert (v - read(dgd(M, 9 * k, v, lr=lr), 9 * k)).norm() < (v - read(M, 9 * k)).norm()
    assert (v - read(delta(M, k, v, lr=10.0), k)).norm() > before


@pytest.mark.parametrize("rule", [hebbian, delta, dgd, oja])
def test_a_batch_of_memories_is_each_memory_alone(rule) -> None:
    M, k, v = draw(2, 3, 4)
    lr, retain = torch.rand(3, 4, dtype=torch.float64), torch.rand(3, 4, dtype=torch.float64)
    together = rule(M, k, v, lr=lr, retain=retain)
    for i in range(3):
        for j in range(4):
            alone = rule(M[i, j], k[i, j], v[i, j], lr=lr[i, j].item(), retain=retain[i, j].item())
            torch.testing.assert_close(together[i, j], alone, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("rule", [hebbian, delta, dgd, oja])
@pytest.mark.parametrize(("lr", "retain"), [(0.3, 1.0), (0.3, 0.9), (0.25, 0.75)])
def test_in_place_gives_the_same_and_pure_leaves_the_memory_alone(rule, lr: float, retain: float) -> None:
    M, k, v = draw(3)
    kept = M.clone()
    pure = rule(M, k, v, lr=lr, retain=retain)
    assert torch.equal(M, kept)
    assert rule(M, k, v, lr=lr, retain=retain, out=M) is M
    torch.testing.assert_close(M, pure, rtol=1e-14, atol=1e-15)


def test_out_may_be_another_tensor_and_scales_may_be_tensors_in_place() -> None:
    M, k, v = draw(4)
    elsewhere = torch.empty_like(M)
    assert hebbian(M, k, v, lr=0.5, out=elsewhere) is elsewhere
    torch.testing.assert_close(elsewhere, M + 0.5 * torch.outer(v, k))
    expected = 0.5 * M + 0.2 * torch.outer(v, k)
    torch.testing.assert_close(hebbian(M, k, v, lr=torch.tensor(0.2), retain=torch.tensor(0.5), out=M), expected)


def test_retain_keeps_that_part() -> None:
    M, k, v = draw(5)
    torch.testing.assert_close(hebbian(M, k, v, lr=0.0, retain=0.25), 0.25 * M)
    torch.testing.assert_close(delta(M, k, v, retain=0.5), 0.5 * M + torch.outer(v - M @ k, k))


def test_a_memory_with_one_slot_has_the_key_one() -> None:
    M, _, _ = draw(6)
    v = torch.randn_like(M)
    as_matrix = hebbian(M.reshape(-1, 1), torch.ones(1, dtype=M.dtype), v.reshape(-1), lr=0.3, retain=0.9)
    torch.testing.assert_close(hebbian(M, None, v, lr=0.3, retain=0.9), as_matrix.reshape(M.shape))


def test_writes_can_be_differentiated() -> None:
    M, k, v = draw(7)
    k.requires_grad_()
    assert torch.autograd.gradcheck(lambda key: dgd(M, key, v, lr=0.7, retain=0.9), (k,))


@pytest.mark.parametrize("rule", [hebbian, delta, dgd, oja])
def test_shapes_that_do_not_fit_are_named(rule) -> None:
    M, k, v = draw(8)
    with pytest.raises(ValueError, match=r"d_v, d_k.*got M \(5, 7\), k \(5,\), v \(5,\)"):
        rule(M, v, v)
    with pytest.raises(ValueError, match="a write expects"):
        rule(M, k, k)
    with pytest.raises(TypeError, match="keys and values are tensors, got k: list"):
        rule(M, [1.0], v)


def test_bad_reads_and_one_slot_writes_are_named() -> None:
    M, k, v = draw(9)
    with pytest.raises(ValueError, match="read expects"):
        read(M, v)
    with pytest.raises(ValueError, match="shape of its value"):
        hebbian(M, None, v)
