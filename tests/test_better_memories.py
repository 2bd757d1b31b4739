"""The better memories of gradients as PyTorch citizens: saved and resumed mid-period, scheduled, grouped, refused."""

import copy
import io
import math
from collections.abc import Callable

import pytest
import torch
from torch import nn

from nlcore.levels import order_levels
from nlcore.optimizers import DGD, M3, AdamW, DeepMomentum, DeltaMomentum, MemoryOptimizer, MultiscaleMomentum, Muon
from tests.small_net import loss_of, net, train

T = torch.optim
MAKERS: dict[str, Callable[..., MemoryOptimizer]] = {
    "delta": lambda model, p, **s: DeltaMomentum(p, **{"lr": 0.02, **s}),
    "delta-gradient-key": lambda model, p, **s: DeltaMomentum(p, **{"lr": 0.02, "key": "gradient", "erase": 0.5, **s}),
    "deep": lambda model, p, **s: DeepMomentum(p, **{"lr": 0.02, "hidden": 5, **s}),
    "muon": lambda model, p, **s: Muon(p, **{"lr": 0.02, **s}),
    "slow+fast": lambda model, p, **s: MultiscaleMomentum(p, **{"lr": 0.02, "period": 4, **s}),
    "m3": lambda model, p, **s: M3(p, **{"lr": 0.02, "period": 4, **s}),
    "m3-literal": lambda model, p, **s: M3(p, **{"lr": 0.02, "period": 4, "mode": "literal", **s}),
    "dgd": lambda model, p, **s: DGD(p, model=model, **{"lr": 0.02, **s}),
}
SPLITTING = ("muon", "m3", "m3-literal")  # matrices and the rest become two groups
every = pytest.mark.parametrize("name", MAKERS)


def flat(model: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def rate_of_the_rest(name: str) -> dict:
    return {"adamw_lr": 0.1} if name in SPLITTING else {}


@every
def test_it_learns(name: str) -> None:
    model = net()
    optimizer = MAKERS[name](model, model.parameters())
    before = loss_of(model, 0).item()
    for _ in range(30):
        optimizer.zero_grad()
        loss_of(model, 0).backward()
        optimizer.step()
    assert loss_of(model, 0).item() < 0.95 * before


@every
@pytest.mark.parametrize("cut", [1, 6, 8])  # inside a slow period of four steps, and at its end
def test_a_run_cut_in_two_and_saved_equals_the_whole(name: str, cut: int) -> None:
    whole, first = net(), net()
    train(whole, MAKERS[name](whole, whole.parameters()), range(15))
    optimizer = MAKERS[name](first, first.parameters())
    train(first, optimizer, range(cut))
    file = io.BytesIO()
    torch.save({"model": first.state_dict(), "optimizer": optimizer.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    second = net(seed=5)
    second.load_state_dict(saved["model"])
    resumed = MAKERS[name](second, second.parameters(), lr=0.7)  # the saved rate is the one that counts
    resumed.load_state_dict(saved["optimizer"])
    train(second, resumed, range(cut, 15))
    assert torch.equal(flat(whole), flat(second))


@every
def test_a_deep_copy_goes_its_own_way(name: str) -> None:
    model = net()
    optimizer = MAKERS[name](model, model.parameters())
    train(model, optimizer, range(3))
    twin_model, twin = copy.deepcopy((model, optimizer))
    if isinstance(twin, DGD):
        twin.watch(twin_model)
    before = flat(model)
    train(twin_model, twin, range(3, 7))
    assert torch.equal(flat(model), before)
    train(model, optimizer, range(3, 7))
    assert torch.equal(flat(model), flat(twin_model))


@every
def test_a_scheduler_reaches_every_group(name: str) -> None:
    scheduled, by_hand = net(), net()
    a, b = MAKERS[name](scheduled, scheduled.parameters()), MAKERS[name](by_hand, by_hand.parameters())
    start = [group["lr"] for group in b.param_groups]
    train(scheduled, a, range(10), T.lr_scheduler.StepLR(a, 4, gamma=0.1))
    for step in range(10):
        for group, lr in zip(b.param_groups, start, strict=True):
            group["lr"] = lr * 0.1 ** (step // 4)
        train(by_hand, b, range(step, step + 1))
    torch.testing.assert_close(flat(scheduled), flat(by_hand), rtol=1e-12, atol=1e-14)


@every
def test_groups_have_their_own_rate(name: str) -> None:
    model = net()
    still = {"params": list(model[0].parameters()), "lr": 0.0}
    optimizer = MAKERS[name](model, [still, {"params": list(model[2].parameters())}], **rate_of_the_rest(name))
    before = [p.detach().clone() for p in model.parameters()]
    train(model, optimizer, range(3))
    moved = [not torch.equal(p, old) for p, old in zip(model.parameters(), before, strict=True)]
    assert moved[0] is False and moved[2] is True


@every
def test_closure_is_called_with_gradients_on_and_its_loss_returned(name: str) -> None:
    model = net()
    optimizer = MAKERS[name](model, model.parameters())

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = loss_of(model, 0)
        loss.backward()
        return loss

    losses = [optimizer.step(closure) for _ in range(8)]
    assert all(loss is not None for loss in losses) and losses[-1] < losses[0]


@every
def test_parameters_without_a_gradient_stay(name: str) -> None:
    model = net()
    optimizer = MAKERS[name](model, model.parameters())
    model[0].requires_grad_(False)
    before = model[0].weight.detach().clone()
    train(model, optimizer, range(2))
    assert torch.equal(model[0].weight, before) and model[0].weight not in optimizer.state


@every
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_is_reported_and_nothing_is_stored(name: str, value: float) -> None:
    model = net()
    optimizer = MAKERS[name](model, model.parameters())
    train(model, optimizer, range(2))
    optimizer.zero_grad()
    loss_of(model, 2).backward()
    model[2].weight.grad[0, 0] = value
    weights, memories = flat(model), copy.deepcopy(optimizer.state_dict()["state"])
    with pytest.raises(FloatingPointError, match=r"gradient of shape \(3, 8\)"):
        optimizer.step()
    assert torch.equal(flat(model), weights)
    for before, after in zip(memories.values(), optimizer.state_dict()["state"].values(), strict=True):
        assert all(torch.equal(torch.as_tensor(before[key]), torch.as_tensor(after[key])) for key in before)
    train(model, optimizer, range(2, 3))
    assert torch.isfinite(flat(model)).all()


@every
def test_complex_and_integer_parameters_are_refused(name: str) -> None:
    for dtype in (torch.complex64, torch.int64):
        with pytest.raises(TypeError, match="real floating-point"):
            MAKERS[name](net(), [nn.Parameter(torch.ones(2, 2, dtype=dtype), requires_grad=False)])


@every
def test_sparse_gradients_are_refused_before_anything_moves(name: str) -> None:
    table = nn.Embedding(5, 2, sparse=True)
    model = nn.ModuleList([table, nn.Linear(2, 2)])
    optimizer = MAKERS[name](model, model.parameters())
    table(torch.tensor([1])).sum().backward()
    with pytest.raises(ValueError, match="sparse gradient, expected a dense one"):
        optimizer.step()
    assert not optimizer.state


@every
@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"lr": -0.1}, ValueError, "lr must be a finite number >= 0, got -0.1"),
        ({"lr": "fast"}, TypeError, "lr must be a number, got str"),
        ({"weight_decay": math.nan}, ValueError, "weight_decay must be"),
    ],
)
def test_bad_settings_are_named(name: str, settings: dict, error, words: str) -> None:
    model = net()
    with pytest.raises(error, match=words):
        MAKERS[name](model, model.parameters(), **settings)


OWN_BAD = [
    ("delta", {"beta": 1.0}, ValueError, r"beta must lie in \[0, 1\)"),
    ("delta", {"erase": 1.9}, ValueError, r"erase must be below 1 \+ beta = 1.9"),
    ("delta", {"key": "rows"}, ValueError, "key must be one of"),
    ("deep", {"hidden": 0}, ValueError, "hidden must be"),
    ("deep", {"hidden": 2.5}, TypeError, "hidden must be"),
    ("deep", {"retain": 0.0}, ValueError, r"retain must lie in \(0, 1\]"),
    ("deep", {"objective": "l1"}, ValueError, "objective must be one of"),
    ("slow+fast", {"period": 0}, ValueError, "period must be"),
    ("slow+fast", {"slow_beta": 1.0}, ValueError, "slow_beta must lie"),
    ("slow+fast", {"alpha": -1.0}, ValueError, "alpha must be"),
    ("muon", {"ns_steps": 0}, ValueError, "ns_steps must be"),
    ("muon", {"ns_method": "quartic"}, ValueError, "quintic"),
    ("muon", {"ns_dtype": torch.int32}, TypeError, "ns_dtype must be a floating-point"),
    ("muon", {"adjust_lr": "rms"}, ValueError, "adjust_lr must be one of"),
    ("muon", {"adamw_lr": -1.0}, ValueError, "adamw_lr must be"),
    ("muon", {"betas": (0.9, 1.0)}, ValueError, "beta2 must lie"),
    ("muon", {"use_muon": True}, ValueError, r"use_muon=True expects matrices, got a parameter of shape \(8,\)"),
    ("m3", {"mode": "exact"}, ValueError, "mode must be one of"),
    ("m3", {"betas": (0.9, 0.99)}, TypeError, "betas must be three numbers"),
    ("m3", {"betas": (0.9, 0.99, 1.0)}, ValueError, "beta3 must lie"),
    ("m3", {"period": 1.5}, TypeError, "period must be"),
    ("dgd", {"objective": "delta"}, ValueError, "objective must be one of"),
]


@pytest.mark.parametrize(("name", "settings", "error", "words"), OWN_BAD)
def test_own_bad_settings_are_named(name: str, settings: dict, error, words: str) -> None:
    model = net()
    with pytest.raises(error, match=words):
        MAKERS[name](model, model.parameters(), **settings)


@every
def test_a_bad_group_is_refused_whole(name: str) -> None:
    model = net()
    optimizer = MAKERS[name](model, model.parameters())
    groups = len(optimizer.param_groups)
    with pytest.raises(ValueError, match="lr must be"):
        optimizer.add_param_group({"params": [nn.Parameter(torch.ones(2, 2))], "lr": -1.0})
    assert len(optimizer.param_groups) == groups


@every
def test_bfloat16_scalars_vectors_and_higher_axes_work(name: str) -> None:
    shapes = [(), (3,), (2, 3), (2, 3, 4)]
    weights = [nn.Parameter(torch.ones(shape, dtype=torch.bfloat16)) for shape in shapes]
    model = nn.Linear(3, 2).bfloat16()
    optimizer = MAKERS[name](model, [*weights, *model.parameters()], lr=0.1, **rate_of_the_rest(name))
    model(torch.ones(1, 3, dtype=torch.bfloat16)).sum().backward()
    for weight in weights:
        weight.grad = torch.ones_like(weight)
    optimizer.step()
    for weight in weights:
        assert weight.dtype == torch.bfloat16 and (weight < 1).all(), weight.shape


@every
def test_zero_gradients_move_nothing_and_leave_no_nan(name: str) -> None:
    model = net()
    optimizer = MAKERS[name](model, model.parameters())
    before = flat(model)
    for _ in range(6):
        optimizer.zero_grad()
        (0.0 * loss_of(model, 0)).backward()
        optimizer.step()
    if name != "dgd":  # DGD erases what the layer answers to its input, whatever the gradient
        assert torch.equal(flat(model), before)
    assert torch.isfinite(flat(model)).all()


LEVELS = {
    "delta": [["momentum m"], ["weights W"]],
    "deep": [["memory network m"], ["weights W"]],
    "slow+fast": [["fast momentum m"], ["weights W"], ["slow momentum s"]],
    "m3": [
        ["fast momentum M1", "second moment V", "first moment (AdamW)", "second moment (AdamW)"],
        ["weights W", "other weights"],
        ["slow momentum M2"],
    ],
    "muon": [["momentum m", "first moment (AdamW)", "second moment (AdamW)"], ["weights W", "other weights"]],
    "dgd": [["weights W"]],
}


@pytest.mark.parametrize("name", LEVELS)
def test_levels_in_the_order_of_definition_two_with_their_periods(name: str) -> None:
    model = net()
    optimizer = MAKERS[name](model, model.parameters())
    levels = order_levels(optimizer.levels())
    assert [sorted(part.name for part in level) for level in levels] == [sorted(level) for level in LEVELS[name]]
    slow = [part for part in optimizer.levels() if part.period > 1]
    assert [part.period for part in slow] == ([4] if name in ("slow+fast", "m3") else [])
    words = repr(optimizer)
    assert all(part.stores in words for part in optimizer.levels())
    assert ("every 4 steps" in words) == bool(slow), words


def test_two_periods_are_two_slow_levels() -> None:
    model = net()
    groups = [{"params": model[0].parameters(), "period": 2}, {"params": model[2].parameters(), "period": 5}]
    optimizer = MultiscaleMomentum(groups, lr=0.1)
    assert [(p.name, p.period, p.numbers) for p in optimizer.levels() if p.period > 1] == [
        ("slow momentum s, period 2", 2, 56),
        ("slow momentum s, period 5", 5, 27),
    ]


@pytest.mark.parametrize("name", SPLITTING)
def test_what_is_no_matrix_moves_as_in_adamw(name: str) -> None:
    model, twin = net(), net()
    optimizer = MAKERS[name](model, model.parameters(), adamw_lr=0.05, weight_decay=0.1)
    betas = (0.9, 0.999)
    reference = AdamW([twin[0].bias, twin[2].bias], lr=0.05, betas=betas, weight_decay=0.1)
    for step in range(6):
        optimizer.zero_grad()
        loss_of(model, step).backward()
        twin[0].bias.grad, twin[2].bias.grad = model[0].bias.grad.clone(), model[2].bias.grad.clone()
        optimizer.step()
        reference.step()
        assert torch.equal(model[0].bias, twin[0].bias) and torch.equal(model[2].bias, twin[2].bias)


@pytest.mark.parametrize("name", SPLITTING)
def test_a_group_can_send_a_matrix_to_adamw(name: str) -> None:
    model = net()
    groups = [{"params": model[2].parameters(), "use_muon": False, "lr": 0.01}, {"params": model[0].parameters()}]
    optimizer = MAKERS[name](model, groups)
    assert [group["use_muon"] for group in optimizer.param_groups] == [False, True, False]
    train(model, optimizer, range(2))
    assert set(optimizer.state[model[2].weight]) == set(optimizer.state[model[0].bias])


@pytest.mark.parametrize("name", ["delta", *SPLITTING])
def test_a_stack_is_moved_as_its_matrices_one_by_one(name: str) -> None:
    random = torch.Generator().manual_seed(3)
    start = torch.randn(2, 3, 5, 4, dtype=torch.float64, generator=random)
    gradients = torch.randn(7, 2, 3, 5, 4, dtype=torch.float64, generator=random)
    stack = nn.Parameter(start.clone())
    one = nn.Parameter(start[1, 2].clone())
    together = MAKERS[name](None, [stack], stacked=True)
    alone = MAKERS[name](None, [one])
    for g in gradients:
        stack.grad, one.grad = g.clone(), g[1, 2].clone()
        together.step()
        alone.step()
    torch.testing.assert_close(stack[1, 2], one, rtol=1e-11, atol=1e-12)
