"""The optimizers: equal to torch.optim step for step, full citizens of PyTorch, clear about bad input."""

import io
import math

import pytest
import torch
from torch import nn

from nlcore.levels import order_levels
from nlcore.memory import hebbian
from nlcore.optimizers import SGD, Adam, AdamW, Momentum
from nlcore.optimizers.checks import check_gradient
from tests.small_net import loss_of, net, train

T = torch.optim
PAIRS = {
    "sgd": (lambda p: SGD(p, lr=0.05), lambda p: T.SGD(p, lr=0.05)),
    "sgd-decay": (lambda p: SGD(p, lr=0.05, weight_decay=0.1), lambda p: T.SGD(p, lr=0.05, weight_decay=0.1)),
    "momentum": (lambda p: Momentum(p, lr=0.02, beta=0.9), lambda p: T.SGD(p, lr=0.02, momentum=0.9)),
    "momentum-decay": (
        lambda p: Momentum(p, lr=0.02, beta=0.8, weight_decay=0.1),
        lambda p: T.SGD(p, lr=0.02, momentum=0.8, weight_decay=0.1),
    ),
    "adam": (lambda p: Adam(p, lr=0.01), lambda p: T.Adam(p, lr=0.01)),
    "adam-betas": (
        lambda p: Adam(p, lr=0.01, betas=(0.5, 0.6), eps=1e-3, weight_decay=0.1),
        lambda p: T.Adam(p, lr=0.01, betas=(0.5, 0.6), eps=1e-3, weight_decay=0.1),
    ),
    "adamw": (lambda p: AdamW(p, lr=0.01, weight_decay=0.3), lambda p: T.AdamW(p, lr=0.01, weight_decay=0.3)),
}
OURS = [SGD, Momentum, Adam, AdamW]


def assert_same(a: nn.Module, b: nn.Module, rtol: float = 1e-12) -> None:
    for p, q in zip(a.parameters(), b.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=rtol, atol=1e-14)


@pytest.mark.parametrize("name", PAIRS)
def test_equal_to_torch_step_for_step(name: str) -> None:
    ours, theirs = net(), net()
    a, b = PAIRS[name][0](ours.parameters()), PAIRS[name][1](theirs.parameters())
    for step in range(60):
        train(ours, a, range(step, step + 1))
        train(theirs, b, range(step, step + 1))
        assert_same(ours, theirs)


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize(
    "schedule",
    [
        lambda o: T.lr_scheduler.StepLR(o, 5, gamma=0.3),
        lambda o: T.lr_scheduler.CosineAnnealingLR(o, 30),
        lambda o: T.lr_scheduler.LambdaLR(o, lambda s: min(1.0, (s + 1) / 10)),
    ],
    ids=["step", "cosine", "warm-up"],
)
def test_schedulers_act_as_on_torch(name: str, schedule) -> None:
    ours, theirs = net(), net()
    a, b = PAIRS[name][0](ours.parameters()), PAIRS[name][1](theirs.parameters())
    train(ours, a, range(30), schedule(a))
    train(theirs, b, range(30), schedule(b))
    assert_same(ours, theirs)


@pytest.mark.parametrize("name", PAIRS)
def test_a_run_cut_in_two_and_saved_equals_the_whole(name: str) -> None:
    whole, first = net(), net()
    a = PAIRS[name][0](whole.parameters())
    train(whole, a, range(20))
    b = PAIRS[name][0](first.parameters())
    train(first, b, range(9))
    file = io.BytesIO()
    torch.save({"model": first.state_dict(), "optimizer": b.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    second = net(seed=5)
    second.load_state_dict(saved["model"])
    c = PAIRS[name][0](second.parameters())
    c.load_state_dict(saved["optimizer"])
    train(second, c, range(9, 20))
    assert_same(whole, second, rtol=0)


def test_groups_have_their_own_settings() -> None:
    ours, theirs = net(), net()

    def groups(model: nn.Module) -> list[dict]:
        last = {"params": list(model[2].parameters()), "weight_decay": 0.2}
        return [{"params": model[0].parameters(), "lr": 0.5}, last]

    train(ours, AdamW(groups(ours), lr=0.01), range(15))
    train(theirs, T.AdamW(groups(theirs), lr=0.01), range(15))
    assert_same(ours, theirs)


TORCH = tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2])


@pytest.mark.skipif(TORCH < (2, 6), reason="torch.optim takes named parameters since torch 2.6")
def test_named_parameters_and_a_late_group_are_accepted() -> None:
    model = net()
    optimizer = Momentum(model[0].named_parameters(), lr=0.1)
    optimizer.add_param_group({"params": list(model[2].named_parameters()), "lr": 0.2})
    train(model, optimizer, range(2))
    assert optimizer.numbers() == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("kind", OURS)
def test_closure_is_called_with_gradients_on_and_its_loss_returned(kind) -> None:
    model = net()
    optimizer = kind(model.parameters(), lr=0.1)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = loss_of(model, 0)
        loss.backward()
        return loss

    first = optimizer.step(closure)
    assert first is not None and optimizer.step(closure) < first
    assert optimizer.step() is None


@pytest.mark.parametrize("kind", OURS)
def test_parameters_without_a_gradient_stay(kind) -> None:
    used, unused = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    optimizer = kind([used, unused], lr=0.1)
    used.sum().backward()
    optimizer.step()
    assert torch.equal(unused, torch.ones(2)) and not torch.equal(used, torch.ones(2))
    assert unused not in optimizer.state


@pytest.mark.parametrize("seed", range(3))
def test_the_buffer_of_momentum_is_a_hebbian_memory_that_read_the_gradients(seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    gradients = torch.randn(30, 4, 5, dtype=torch.float64, generator=random)
    weight = nn.Parameter(torch.zeros(4, 5, dtype=torch.float64))
    optimizer = Momentum([weight], lr=0.1, beta=0.9)
    memory = torch.zeros(20, 1, dtype=torch.float64)
    for g in gradients:
        weight.grad = g.clone()
        optimizer.step()
        memory = hebbian(memory, torch.ones(1, dtype=torch.float64), g.flatten(), retain=0.9)
    torch.testing.assert_close(optimizer.state[weight]["m"].flatten(), memory.squeeze(1), rtol=1e-14, atol=1e-15)


def conventions(lrs: list[float]) -> dict[str, torch.Tensor]:
    ends = {}
    for convention in ("torch", "step", "gradient"):
        model = net()
        optimizer = Momentum(model.parameters(), lr=lrs[0], beta=0.9, convention=convention)
        for step, lr in enumerate(lrs):
            optimizer.param_groups[0]["lr"] = lr
            train(model, optimizer, range(step, step + 1))
        ends[convention] = torch.cat([p.detach().flatten() for p in model.parameters()])
    return ends


def test_conventions_agree_for_a_constant_step_and_only_then() -> None:
    same = conventions([0.05] * 20)
    torch.testing.assert_close(same["torch"], same["step"], rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(same["torch"], same["gradient"], rtol=1e-12, atol=1e-13)
    changed = conventions([0.05] * 10 + [0.005] * 10)
    torch.testing.assert_close(changed["step"], changed["gradient"], rtol=1e-12, atol=1e-13)
    assert (changed["torch"] - changed["step"]).abs().max() > 1e-3


def test_the_paper_s_memory_that_never_forgets() -> None:
    weight = nn.Parameter(torch.zeros(1, dtype=torch.float64))
    optimizer = Momentum([weight], lr=0.1, beta=1.0, convention="gradient")
    for _ in range(5):
        weight.grad = torch.ones(1, dtype=torch.float64)
        optimizer.step()
    assert optimizer.state[weight]["m"].item() == pytest.approx(0.5)
    assert weight.item() == pytest.approx(-0.1 * (1 + 2 + 3 + 4 + 5))


def test_levels_and_words() -> None:
    model = net()
    shape = {
        SGD: [["weights W"]],
        Momentum: [["momentum m"], ["weights W"]],
        Adam: [["first moment m", "second moment v"], ["weights W"]],
    }
    for kind, expected in shape.items():
        optimizer = kind(model.parameters(), lr=0.25)
        assert [[part.name for part in level] for level in order_levels(optimizer.levels())] == expected
        words = repr(optimizer)
        assert kind.__name__ in words and "lr=0.25" in words and "83 numbers" in words
        assert all(part.stores in words for part in optimizer.levels())


BAD = [
    ({"lr": -0.1}, ValueError, "lr must be a finite number >= 0, got -0.1"),
    ({"lr": math.nan}, ValueError, "lr must be a finite number >= 0, got nan"),
    ({"lr": math.inf}, ValueError, "lr must be"),
    ({"lr": "fast"}, TypeError, "lr must be a number, got str"),
    ({"lr": None}, TypeError, "lr must be a number"),
    ({"lr": True}, TypeError, "lr must be one number"),
    ({"lr": torch.ones(2)}, TypeError, "lr must be one number"),
    ({"weight_decay": -1.0}, ValueError, "weight_decay must be"),
]


@pytest.mark.parametrize("kind", OURS)
@pytest.mark.parametrize(("settings", "error", "words"), BAD)
def test_bad_settings_are_named(kind, settings: dict, error, words: str) -> None:
    with pytest.raises(error, match=words):
        kind([nn.Parameter(torch.ones(1))], **settings)


@pytest.mark.parametrize("beta", [-0.1, 1.0, 1.5, math.nan])
def test_beta_outside_its_range_is_named(beta: float) -> None:
    weight = [nn.Parameter(torch.ones(1))]
    with pytest.raises(ValueError, match=r"beta must lie in \[0, 1\)"):
        Momentum(weight, beta=beta)
    with pytest.raises(ValueError, match=r"beta1 must lie in \[0, 1\)"):
        Adam(weight, betas=(beta, 0.9))
    with pytest.raises(ValueError, match=r"beta2 must lie in \[0, 1\)"):
        AdamW(weight, betas=(0.9, beta))


def test_other_bad_settings() -> None:
    weight = [nn.Parameter(torch.ones(1))]
    with pytest.raises(TypeError, match="betas must be a pair"):
        Adam(weight, betas=0.9)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="eps must be"):
        Adam(weight, eps=-1e-8)
    with pytest.raises(ValueError, match="convention must be one of torch, step, gradient; got 'nesterov'"):
        Momentum(weight, convention="nesterov")
    with pytest.raises(ValueError, match="empty parameter list"):
        SGD([])


@pytest.mark.parametrize("kind", OURS)
def test_a_bad_group_is_refused_whole(kind) -> None:
    optimizer = kind([nn.Parameter(torch.ones(1))], lr=0.1)
    with pytest.raises(ValueError, match="lr must be"):
        optimizer.add_param_group({"params": [nn.Parameter(torch.ones(1))], "lr": -1.0})
    assert len(optimizer.param_groups) == 1


@pytest.mark.parametrize("kind", OURS)
def test_complex_and_integer_parameters_are_refused(kind) -> None:
    for tensor in (torch.ones(1, dtype=torch.complex64), torch.ones(1, dtype=torch.int64)):
        with pytest.raises(TypeError, match="real floating-point"):
            kind([nn.Parameter(tensor, requires_grad=False)], lr=0.1)


@pytest.mark.parametrize("kind", OURS)
def test_sparse_gradients_are_refused_before_anything_moves(kind) -> None:
    table = nn.Embedding(5, 2, sparse=True)
    optimizer = kind(table.parameters(), lr=0.1)
    table(torch.tensor([1])).sum().backward()
    before = table.weight.detach().clone()
    with pytest.raises(ValueError, match="sparse gradient, expected a dense one"):
        optimizer.step()
    assert torch.equal(table.weight, before) and table.weight not in optimizer.state


@pytest.mark.filterwarnings("ignore:Sparse CSR")
def test_every_sparse_layout_is_refused() -> None:
    weight = nn.Parameter(torch.eye(3))
    weight.grad = torch.eye(3).to_sparse()
    compressed = torch.eye(3).to_sparse_csr()
    for gradient in (weight.grad, compressed):
        with pytest.raises(ValueError, match="sparse gradient"):
            check_gradient(gradient)
    check_gradient(torch.eye(3))


@pytest.mark.parametrize("kind", OURS)
def test_a_rate_spoilt_on_the_way_is_reported_before_anything_moves(kind) -> None:
    weight = nn.Parameter(torch.ones(1))
    optimizer = kind([weight], lr=0.1)
    weight.grad = torch.ones(1)
    optimizer.param_groups[0]["lr"] = math.nan
    with pytest.raises(ValueError, match="lr must be"):
        optimizer.step()
    assert weight.item() == 1.0


@pytest.mark.parametrize("kind", OURS)
def test_half_precision_and_scalar_parameters_work(kind) -> None:
    for tensor in (torch.ones((), dtype=torch.bfloat16), torch.ones(2, 3, 4)):
        weight = nn.Parameter(tensor.clone())
        optimizer = kind([weight], lr=0.1)
        weight.grad = torch.ones_like(weight)
        optimizer.step()
        assert weight.dtype == tensor.dtype and (weight < 1).all()
