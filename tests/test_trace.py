"""The trace of updates: exact against a plain computation, for any optimizer, and without effect on training."""

import copy
import gc
import math
import weakref

import pytest
import torch
from torch import Tensor, nn

from nlcore.levels import UpdateTrace, parts_of
from nlcore.optimizers import M3, SGD, Adam, DeltaMomentum, MultiscaleMomentum

T = torch.optim


def problem(seed: int = 0, dtype: torch.dtype = torch.float64) -> tuple[nn.Module, Tensor, Tensor]:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)).to(dtype)
    return model, torch.randn(20, 6, dtype=dtype), torch.randn(20, 3, dtype=dtype)


def train(model: nn.Module, optimizer: T.Optimizer, x: Tensor, y: Tensor, steps: int, after=lambda: None) -> None:
    for step in range(steps):
        optimizer.zero_grad()
        rows = slice(step % 4 * 5, step % 4 * 5 + 5)
        (model(x[rows]) - y[rows]).square().mean().backward()
        optimizer.step()
        after()


def numbers(tensors) -> Tensor:
    return torch.cat([tensor.detach().reshape(-1).clone() for tensor in tensors])


MAKERS = {
    "SGD": lambda p: SGD(p, lr=0.1),
    "Adam": lambda p: Adam(p, lr=0.01),
    "DeltaMomentum": lambda p: DeltaMomentum(p, lr=0.01),
    "M3": lambda p: M3(p, lr=0.01, period=4),
    "torch SGD": lambda p: T.SGD(p, lr=0.1, momentum=0.9),
    "torch Adam for-loop": lambda p: T.Adam(p, lr=0.01, foreach=False),
    "torch AdamW foreach": lambda p: T.AdamW(p, lr=0.01, foreach=True),
    "torch Adam fused": lambda p: T.Adam(p, lr=0.01, fused=True),  # its writes are not counted by PyTorch
    "torch RMSprop": lambda p: T.RMSprop(p, lr=0.01),
    "torch Rprop": lambda p: T.Rprop(p, lr=0.01),
    "torch Adagrad": lambda p: T.Adagrad(p, lr=0.1),
}


@pytest.mark.parametrize("every", [1, 3, 100])
@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_the_trace_of_any_optimizer_is_exact_where_it_is_measured(make, every: int) -> None:
    model, x, y = problem()
    optimizer = make(model.parameters())
    states = [numbers(model.parameters())]
    trace = UpdateTrace({"model": model}, every)
    train(model, optimizer, x, y, 20, lambda: (trace.record(), states.append(numbers(model.parameters()))))
    moves = torch.stack([(now - last).norm() for now, last in zip(states[1:], states, strict=False)])
    drift = torch.stack([(now - states[0]).norm() for now in states[1:]])
    assert torch.equal(trace.moved[:, 0], moves > 0) and trace.updates() == {"model": 20}
    measured = ~trace.moves[:, 0].isnan()
    torch.testing.assert_close(trace.moves[measured, 0], moves[measured], rtol=1e-12, atol=0)
    known = ~trace.drift[:, 0].isnan()
    torch.testing.assert_close(trace.drift[known, 0], drift[known], rtol=1e-12, atol=0)
    assert known[::every].all() and known.sum() == math.ceil(20 / every)
    assert trace.steps.tolist() == list(range(1, 21))


@pytest.mark.parametrize("every", [1, 2, 7, 50, None])
@pytest.mark.parametrize("write", ["counted", "data", "replaced"])
def test_rare_moves_are_found_whatever_the_way_of_writing(every: int | None, write: str) -> None:
    memory = {"w": torch.zeros(3, dtype=torch.float64)}
    start = memory["w"] if write != "replaced" else lambda: memory["w"]
    trace = UpdateTrace({"slow": start}, every)
    for step in range(1, 61):
        if step % 10 == 0 and write == "counted":
            memory["w"] += 2.0
        elif step % 10 == 0 and write == "data":
            memory["w"].data += 2.0
        elif step % 10 == 0:
            memory["w"] = memory["w"] + 2.0
        trace.record()
    found = trace.steps[trace.moved[:, 0]].tolist()
    if write != "data" or every in (1, None):
        assert found == [10, 20, 30, 40, 50, 60]
    else:  # not counted by PyTorch: seen at the first comparison, exactly from there on
        assert found[0] <= 10 + every and found[1:] == [s for s in (20, 30, 40, 50, 60) if s > found[0]]
    if every in (1, 2, 7, None) and write != "data":  # every move is measured, and the staircase has no gap
        expected = torch.tensor([2 * math.sqrt(3) if step % 10 == 0 else 0.0 for step in range(1, 61)]).double()
        torch.testing.assert_close(trace.moves[:, 0], expected, rtol=1e-7, atol=0)
        stairs = torch.tensor([2 * math.sqrt(3) * (step // 10) for step in range(61)]).double()
        torch.testing.assert_close(trace.staircase("slow")[1], stairs, rtol=1e-7, atol=0)
        assert trace.staircase("slow")[0].tolist() == list(range(61))


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("every", [1, 2, 5, 9])
def test_any_rhythm_is_exact_where_it_is_measured_and_known_again_at_rest(seed: int, every: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    w = torch.zeros(4, dtype=torch.float64)
    trace = UpdateTrace({"w": w}, every)
    states, chance = [w.clone()], torch.rand(1, generator=generator)
    for step in range(120):
        if step < 80 and torch.rand(1, generator=generator) < chance:
            w += torch.randn(4, generator=generator, dtype=torch.float64)
        states.append(w.clone())
        trace.record()
    moves = torch.stack([(now - last).norm() for now, last in zip(states[1:], states, strict=False)])
    drift = torch.stack([now.norm() for now in states[1:]])
    measured, known = ~trace.moves[:, 0].isnan(), ~trace.drift[:, 0].isnan()
    assert torch.equal(trace.moved[:, 0], moves > 0)
    torch.testing.assert_close(trace.moves[measured, 0], moves[measured], rtol=1e-12, atol=0)
    torch.testing.assert_close(trace.drift[known, 0], drift[known], rtol=1e-12, atol=0)
    assert (
        known[80 + 2 * every :].all() and trace.moves[measured, 0].count_nonzero() * every >= (moves > 0).sum() - every
    )
    if every == 1:
        assert measured.all() and known.all()


def test_the_trace_keeps_no_graph_alive() -> None:
    memory = {"M": torch.zeros(3)}
    trace = UpdateTrace({"M": lambda: memory["M"]})
    link = torch.ones(3, requires_grad=True) * 1.0
    memory["M"] = link.square()  # the graph holds `link`
    trace.record()
    memory["M"], gone = memory["M"].detach(), weakref.ref(link)
    del link
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize("every", [1, 5])
@pytest.mark.parametrize("period", [1, 4, 10])
def test_slow_memories_move_once_a_period(period: int, every: int) -> None:
    for optimizer_class, key in ((MultiscaleMomentum, "s"), (M3, "M2")):
        model, x, y = problem()
        optimizer = optimizer_class([model[0].weight, model[2].weight], lr=0.01, period=period)
        trace = UpdateTrace(parts_of(optimizer, key), every)
        train(model, optimizer, x, y, 41, trace.record)
        # A chunk is written before the gradient that follows it: after 41 steps, 40 / period times.
        assert trace.updates() == {"weights": 41, key: 40 // period}
        assert trace.steps[trace.moved[:, 1]].tolist() == list(range(period + 1, 42, period))
        assert trace.drift[0, 1] == 0.0 and trace.drift[period - 1, 1] == 0.0


def test_a_memory_that_is_not_made_yet_counts_as_zeros() -> None:
    model, x, y = problem()
    optimizer = Adam(model.parameters(), lr=0.01)
    trace = UpdateTrace(parts_of(optimizer, "m"))
    assert len(optimizer.state) == 0
    train(model, optimizer, x, y, 1, trace.record)
    m = numbers([optimizer.state[W]["m"] for W in model.parameters()])
    torch.testing.assert_close(trace.drift[0, 1], m.norm(), rtol=1e-12, atol=0)
    assert trace.moved.tolist() == [[True, True]]


def test_parts_of_names_groups_and_reports_a_memory_that_is_not_kept() -> None:
    model, x, y = problem()
    optimizer = T.SGD([{"params": model[0].parameters()}, {"params": model[2].parameters(), "lr": 0.0}], lr=0.1)
    assert list(parts_of(optimizer)) == ["weights 0", "weights 1"]
    trace = UpdateTrace(parts_of(optimizer), every=1)
    train(model, optimizer, x, y, 3, trace.record)
    assert trace.updates() == {"weights 0": 3, "weights 1": 0}  # written with lr 0: measured, so it is no move
    adam = Adam(model.parameters())
    trace = UpdateTrace(parts_of(adam, "exp_avg"))
    with pytest.raises(ValueError, match=r"Adam keeps no memory 'exp_avg'; its state has \['m', 'step', 'v'\]"):
        train(model, adam, x, y, 1, trace.record)


@pytest.mark.parametrize("every", [None, 1, 4, 200])
def test_nothing_is_recorded_for_frozen_levels(every: int | None) -> None:
    model, x, y = problem()
    model[0].requires_grad_(False)
    optimizer = Adam(model[2].parameters(), lr=0.01)
    trace = UpdateTrace({"frozen": model[0], "trained": model[2]}, every)
    train(model, optimizer, x, y, 30, trace.record)
    assert trace.updates() == {"frozen": 0, "trained": 30}
    assert (trace.moves[:, 0] == 0).all() and (trace.drift[:, 0] == 0).all()


@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize(("make", "key"), [(MAKERS["Adam"], "v"), (MAKERS["M3"], "M2"), (MAKERS["torch SGD"], None)])
def test_watching_has_no_effect_on_training(make, key: str | None, every: int) -> None:
    model, x, y = problem(dtype=torch.float32)
    plain = copy.deepcopy(model)
    train(plain, unwatched := make(plain.parameters()), x, y, 25)
    optimizer = make(model.parameters())
    trace = UpdateTrace(parts_of(optimizer, *([key] if key else [])), every)
    train(model, optimizer, x, y, 25, trace.record)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), plain.parameters(), strict=True))
    mine, theirs = optimizer.state_dict()["state"], unwatched.state_dict()["state"]
    assert all(
        torch.equal(torch.as_tensor(mine[i][name]), torch.as_tensor(theirs[i][name]))
        for i in theirs
        for name in theirs[i]
    )


def test_fast_weights_inside_a_graph_or_inference_are_watched() -> None:
    M = torch.zeros(2, 2, requires_grad=True)
    memory = {"M": M}
    trace = UpdateTrace({"M": lambda: memory["M"]}, every=1)
    memory["M"] = memory["M"] + torch.eye(2)
    trace.record()
    memory["M"].sum().backward()  # the graph is whole
    assert M.grad is not None and trace.moved.tolist() == [[True]] and memory["M"].requires_grad
    with torch.inference_mode():
        memory["M"] = torch.zeros(2, 2)
        trace.record()
        memory["M"].add_(1.0)
        trace.record()
        trace.record()
    assert trace.moved[:, 0].tolist() == [True, True, True, False]
    torch.testing.assert_close(trace.drift[:, 0], torch.tensor([math.sqrt(2), 0.0, 2.0, 2.0]).double())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_is_measured_in_float32_and_views_are_the_numbers_they_show(dtype: torch.dtype) -> None:
    w = torch.zeros(4, 300, dtype=dtype)
    trace = UpdateTrace({"all": w, "row": lambda: w[1]}, every=1)
    w[1] += 1.0
    trace.record()
    trace.record()
    w[2] += 1.0
    trace.record()
    assert trace.moved.tolist() == [[True, True], [False, False], [True, False]]
    torch.testing.assert_close(trace.drift[-1], torch.tensor([600.0, 300.0]).double().sqrt(), rtol=1e-6, atol=0)


def test_bad_input_is_named() -> None:
    w = torch.zeros(3)
    with pytest.raises(ValueError, match="at least one part"):
        UpdateTrace({})
    with pytest.raises(ValueError, match="every is a number of steps >= 1"):
        UpdateTrace({"w": w}, every=0)
    with pytest.raises(TypeError, match="'w' must be made of tensors of real numbers, got torch.complex64"):
        UpdateTrace({"w": torch.zeros(3, dtype=torch.complex64)})
    with pytest.raises(TypeError, match="got float"):
        UpdateTrace({"w": [1.0]})  # type: ignore[list-item]
    with pytest.raises(ValueError, match="no part 'x' is watched"):
        UpdateTrace({"w": w}).staircase("x")
    memory = {"w": w}
    trace = UpdateTrace({"w": lambda: memory["w"]})
    memory["w"] = torch.zeros(4)
    with pytest.raises(ValueError, match="had 3 numbers at the start and has 4 now"):
        trace.record()
