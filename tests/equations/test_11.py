"""Both sides of every equation of notebook 11, in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from nlcore.memory import delta
from nlcore.sequence.counting import momentum_eigenvalue
from nlcore.sequence.memories import delta_rule
from nlcore.sequence.self_modifying import Boxes, Rules, self_modifying_memory, transition_eigenvalue
from nlcore.sequence.self_modifying.boxes import generate, targets
from nlcore.sequence.states import MemoryState
from nlcore.sequence.titans import titans_memory
from nlcore.tasks.formal import right_answers

SEEDS = range(3)
F64 = torch.float64
D = 4
BARE = {"decay_to": "zero", "own_value": False}  # the printed equations: fade to zero, targets without a residual path


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def unit(seed: int, d: int = D) -> Tensor:
    x = normal(seed, d)
    return x / x.norm()


def boxes(seed: int, rules: Rules) -> Boxes:
    height = sum(rules.height(name, D) for name in rules.boxes)
    return Boxes(0.7 * normal(seed, 1, height, D), normal(seed + 1, 1), 2 + normal(seed + 2, 1))


def named(S: Tensor, rules: Rules) -> dict[str, Tensor]:
    """The boxes of one stream and head, by name."""
    return {name: S[rows] for name, rows in rules.rows(D).items()}


def after(rules: Rules, start: Boxes, x: Tensor, token_by_token: bool = False) -> Tensor:
    """The boxes after the tokens x (T, d), by the library: (R, d)."""
    q = torch.zeros(1, 1, *x.shape, dtype=F64)
    _, state = self_modifying_memory(x[None, None], q, start, rules, token_by_token=token_by_token)
    return state.S[0, 0]


def made_by_hand(M: dict[str, Tensor], x: Tensor, start: Boxes) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Key, value, learning rate and retention of a token, with plain products."""
    bent = M["k"] @ x
    bent = bent * torch.sigmoid(bent)  # silu
    k, v = (z / (z.square().sum() + 1e-6).sqrt() for z in (bent, M["v"] @ x))
    lr = torch.sigmoid((M["lr"] @ x)[0] + start.lr_bias[0])
    return k, v, lr, torch.sigmoid((M["retain"] @ x)[0] + start.retain_bias[0])


@pytest.mark.equation("NL 79")
@pytest.mark.parametrize("seed", SEEDS)
def test_the_boxes_generate(seed: int) -> None:
    rules = Rules()
    start, x = boxes(seed, rules), normal(seed + 9, D)
    made = generate(x.view(1, 1, 1, D), start.start[None], start, rules)
    k, v, lr, retain = made_by_hand(named(start.start[0], rules), x, start)
    for got, expected in zip((made.k, made.v, made.lr, made.log_retain.exp()), (k, v, lr, retain), strict=True):
        torch.testing.assert_close(got.flatten(), expected.flatten(), rtol=1e-12, atol=1e-13)


@pytest.mark.equation("NL 84")
@pytest.mark.parametrize("seed", SEEDS)
def test_each_box_makes_its_own_target(seed: int) -> None:
    rules = Rules(own_value=False)
    start, v = boxes(seed, rules), normal(seed + 9, D)
    got = targets(v.view(1, 1, 1, D), start.start[None], rules).flatten()
    expected = torch.cat([M @ v for M in named(start.start[0], rules).values()])
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-13)


@pytest.mark.equation("11.1")
@pytest.mark.parametrize("seed", SEEDS)
def test_a_step_of_all_boxes_is_one_product(seed: int) -> None:
    rules = Rules(1, **BARE)
    start, x = boxes(seed, rules), normal(seed + 9, 6, D)
    S = start.start[0]
    for x_t in x:
        k, v, lr, retain = made_by_hand(named(S, rules), x_t, start)
        S = S @ (retain * torch.eye(D, dtype=F64) - lr * torch.outer(k - v, k))
    torch.testing.assert_close(after(rules, start, x), S, rtol=1e-10, atol=1e-12)


def by_gradient(rule: str, seed: int) -> tuple[Tensor, Tensor]:
    """One step of (NL 88) with the gradient by autograd, and the library's: all boxes, (R, d)."""
    rules = Rules(1, rule=rule, **BARE)
    start, x = boxes(seed, rules), normal(seed + 9, D)
    S = start.start[0].clone().requires_grad_()
    k, v, lr, retain = (part.detach() for part in made_by_hand(named(S, rules), x, start))
    target = (S @ v).detach()
    answer = S @ k
    loss = -(answer @ target) if rule == "delta" else 0.5 * (answer - target).square().sum()
    (gradient,) = torch.autograd.grad(loss, S)
    expected = S @ (retain * torch.eye(D, dtype=F64) - lr * torch.outer(k, k)) - lr * gradient
    return expected.detach(), after(rules, start, x[None])


@pytest.mark.equation("NL 88")
@pytest.mark.parametrize("rule", ["delta", "dgd_l2"])
@pytest.mark.parametrize("seed", SEEDS)
def test_dgd_with_the_gradient_of_either_objective(seed: int, rule: str) -> None:
    expected, got = by_gradient(rule, seed)
    assert expected.dtype == torch.float64
    torch.testing.assert_close(got, expected, rtol=1e-11, atol=1e-12)


@pytest.mark.equation("NL 92")
@pytest.mark.parametrize("seed", SEEDS)
def test_the_dot_product_is_the_delta_rule_with_a_plus(seed: int) -> None:
    rules = Rules(1, **BARE)
    start, x = boxes(seed, rules), normal(seed + 9, D)
    S = start.start[0]
    k, v, lr, retain = made_by_hand(named(S, rules), x, start)
    plus = S @ (retain * torch.eye(D, dtype=F64) - lr * torch.outer(k, k)) + lr * torch.outer(S @ v, k)
    torch.testing.assert_close(after(rules, start, x[None]), plus, rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(delta(S, k, S @ v, lr, retain), plus, rtol=1e-11, atol=1e-12)


@pytest.mark.equation("NL 93")
@pytest.mark.parametrize("seed", SEEDS)
def test_the_squared_error_subtracts_the_old_answer_twice(seed: int) -> None:
    rules = Rules(1, rule="dgd_l2", **BARE)
    start, x = boxes(seed, rules), normal(seed + 9, D)
    S = start.start[0]
    k, v, lr, retain = made_by_hand(named(S, rules), x, start)
    erased = S @ (retain * torch.eye(D, dtype=F64) - lr * torch.outer(k, k))
    expected = erased - lr * torch.outer(S @ k - S @ v, k)
    torch.testing.assert_close(after(rules, start, x[None]), expected, rtol=1e-11, atol=1e-12)


@pytest.mark.equation("11.2")
@pytest.mark.parametrize(("erase", "retain"), [(1, 1.0), (1, 0.9), (2, 1.0), (2, 0.9)])
def test_where_a_pair_settles(erase: int, retain: float) -> None:
    lr, k, target = 0.3, unit(1), normal(2, 3)
    M = normal(3, 3, D)
    for _ in range(400):
        M = retain * M - erase * lr * torch.outer(M @ k, k) + lr * torch.outer(target, k)
    torch.testing.assert_close(M @ k, lr / (1 - retain + erase * lr) * target, rtol=1e-10, atol=1e-12)


@pytest.mark.equation("NL 90")
@pytest.mark.parametrize("rule", ["delta", "dgd_l2"])
@pytest.mark.parametrize(("memory_chunk", "projection_chunk"), [(1, 1), (4, 4), (3, 5), (5, 2)])
def test_a_chunk_is_generated_from_its_start(memory_chunk: int, projection_chunk: int, rule: str) -> None:
    rules = Rules(memory_chunk, projection_chunk, rule=rule, **BARE)
    start, x = boxes(0, rules), normal(9, 11, D)
    M = named(start.start[0], rules)
    history = [M]
    for t, x_t in enumerate(x, start=1):
        anchor = {name: history[C * ((t - 1) // C)][name] for name in M for C in [rules.chunk_of(name)]}
        k, v, lr, retain = made_by_hand(anchor, x_t, start)
        erase = retain * torch.eye(D, dtype=F64) - lr * torch.outer(k, k)
        gradient = {name: -torch.outer(anchor[name] @ v, k) for name in M}
        if rule == "dgd_l2":
            gradient = {name: torch.outer(anchor[name] @ k - anchor[name] @ v, k) for name in M}
        M = {name: M[name] @ erase - lr * gradient[name] for name in M}
        history.append(M)
    expected = torch.cat(list(M.values()))
    for token_by_token in (True, False):
        torch.testing.assert_close(after(rules, start, x, token_by_token), expected, rtol=1e-9, atol=1e-11)


@pytest.mark.equation("11.3")
def test_parity_is_a_sign_that_a_one_turns() -> None:
    bits = (normal(0, 20, 33) > 0).long()
    sign, signs = torch.ones(20, dtype=F64), []
    for bit in bits.unbind(1):
        sign = torch.where(bit == 1, -sign, sign)
        signs.append(sign)
    torch.testing.assert_close(torch.stack(signs, 1), 1.0 - 2.0 * right_answers("parity", bits).double())


@pytest.mark.equation("11.4")
@pytest.mark.parametrize("retain", [1.0, 0.8])
@pytest.mark.parametrize("seed", SEEDS)
def test_the_eigenvalue_of_a_step(seed: int, retain: float) -> None:
    k, v, lr = unit(seed), unit(seed + 20), 0.9
    step = retain * torch.eye(D, dtype=F64) - lr * torch.outer(k - v, k)
    found = torch.linalg.eigvals(step)
    assert found.imag.abs().max() < 1e-7
    expected = torch.tensor([*[retain] * (D - 1), retain - lr * (1 - (k @ v).item())], dtype=F64).sort().values
    torch.testing.assert_close(found.real.sort().values, expected, rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(
        transition_eigenvalue(k, v, lr, retain), retain - lr * (1 - k @ v), rtol=1e-12, atol=1e-13
    )
    S = normal(seed + 40, 3, D)
    torch.testing.assert_close(
        (S @ step) @ (k - v), transition_eigenvalue(k, v, lr, retain) * (S @ (k - v)), rtol=1e-10, atol=1e-12
    )


@pytest.mark.equation("11.5")
@pytest.mark.parametrize(
    ("lr", "beta", "alpha"), [(0.9, 0.9, 1.0), (0.3, 0.5, 0.95), (1.0, 0.2, 0.9), (0.01, 0.9, 1.0)]
)
def test_memory_and_momentum_along_a_key(lr: float, beta: float, alpha: float) -> None:
    k, T = unit(1), 12
    keys, nothing = k.expand(1, 1, T, D), torch.zeros(1, 1, T, 1, dtype=F64)
    y, _ = titans_memory(keys, keys, nothing, lr, beta, alpha, state=MemoryState(k.view(1, 1, 1, D)))
    step = torch.tensor([[alpha - lr, beta], [-lr, beta]], dtype=F64)
    pair, expected = torch.tensor([1.0, 0.0], dtype=F64), []
    for _ in range(T):
        pair = step @ pair
        expected.append(pair[0])
    torch.testing.assert_close(y.flatten(), torch.stack(expected), rtol=1e-10, atol=1e-12)
    found = torch.linalg.eigvals(step)
    mine = momentum_eigenvalue(lr, beta, alpha)
    assert (found - mine).abs().min() < 1e-12 and mine.imag >= 0
    assert mine.abs() == pytest.approx(found.abs().max().item())


@pytest.mark.equation("11.6")
@pytest.mark.parametrize("lr", [0.3, 0.95, 1.0])
@pytest.mark.parametrize("n", [1, 2, 5, 16])
def test_a_chunk_of_ones_turns_the_sign_once(n: int, lr: float) -> None:
    k, S = unit(1), normal(2, 3, D)
    values = (S @ -k).view(1, 1, 1, 3).expand(1, 1, n, 3)  # the targets of the start of the chunk
    keys = k.expand(1, 1, n, D)
    _, state = delta_rule(keys, keys, values, lr, state=MemoryState(S[None, None]))
    torch.testing.assert_close(state.M[0, 0] @ k, (2 * (1 - lr) ** n - 1) * (S @ k), rtol=1e-10, atol=1e-12)
