"""The tasks of notebook 05: rare items, blocked tasks, streams, bowls, and the winding valley."""

import pytest
import torch

from nlcore.memory import delta
from nlcore.optimizers import DeltaMomentum, Momentum
from nlcore.sweeps import sweep
from nlcore.tasks.blocks import blocks
from nlcore.tasks.quadratics import curvatures, draws, heights
from nlcore.tasks.rare import rare_items
from nlcore.tasks.streams import correlated_stream, prediction_error, teacher_stream
from nlcore.tasks.surfaces import bent_valley

F64 = torch.float64


@pytest.mark.parametrize("one_hot", [False, True])
def test_the_gradient_of_rare_items_is_that_of_its_loss(one_hot: bool) -> None:
    task = rare_items([0, 1], items=6, width=4, one_hot=one_hot, dtype=F64)
    W = torch.randn(3, *task.empty().shape, dtype=F64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    losses = -torch.log_softmax(task.logits(W), -1).diagonal(dim1=-2, dim2=-1)
    (losses * task.frequency).sum().backward()
    torch.testing.assert_close(task.gradient(W.detach()), W.grad, rtol=1e-11, atol=1e-13)


def test_minibatches_are_right_on_average_and_differ_by_seed() -> None:
    task = rare_items([0, 1], items=6, width=4, dtype=F64)
    W = torch.randn(1, *task.empty().shape, dtype=F64, generator=torch.Generator().manual_seed(1))
    gradient = task.minibatch(64)
    drawn = torch.stack([gradient(W, t) for t in range(800)])
    assert (drawn[0] - drawn[1]).abs().max() > 1e-3
    spread = drawn.std(0) / 800**0.5
    assert ((drawn.mean(0) - task.gradient(W)).abs() < 5 * spread + 1e-12).all()


def test_frequencies_and_recall() -> None:
    task = rare_items([0], items=4, width=4, exponent=1.0, one_hot=True, dtype=F64)
    torch.testing.assert_close(task.frequency, torch.tensor([12, 6, 4, 3], dtype=F64) / 25)
    exact = torch.linalg.inv(task.keys[0].mT)  # each key is answered by its own coordinate
    wrong = exact[[1, 0, 2, 3]]
    recalled = task.recalled(torch.stack([exact, wrong])[:, None])
    assert recalled[:, 0].tolist() == [[1, 1, 1, 1], [0, 0, 1, 1]]
    with pytest.raises(ValueError, match="items >= 2"):
        rare_items([0], items=1)


def test_the_gradient_and_the_error_of_blocks() -> None:
    task = blocks([0, 1], block=5, cycles=2, dtype=F64)
    assert task.x.shape == (2, 30, 8, 16)
    W = torch.randn(3, 2, 8, 16, dtype=F64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    residual = task.x[:, 7] @ W.mT - task.y[:, 7]
    (0.5 * residual.square().sum(-1).mean(-1)).sum().backward()
    torch.testing.assert_close(task.gradient(W.detach(), 7), W.grad, rtol=1e-11, atol=1e-12)
    assert task.error(task.teacher[None]).max() < 1e-25
    torch.testing.assert_close(task.error(task.empty()[None]), torch.ones(1, 2, dtype=F64))


def test_a_block_shows_one_subspace_and_the_tasks_take_turns() -> None:
    task = blocks([3], block=4, cycles=2, dtype=F64)
    for t in range(24):
        basis = task.bases[0, t // 4 % 3]
        assert (task.x[0, t] - task.x[0, t] @ basis @ basis.mT).abs().max() < 1e-12
    watch = task.at_block_ends(2)
    seen = [t for t in range(1, 25) if watch(task.empty()[None], t) is not None]
    assert seen == [20, 24]
    with pytest.raises(ValueError, match="inputs >= 6"):
        blocks([0], inputs=5)


def test_streams_have_the_correlation_and_the_drift_they_promise() -> None:
    stream = correlated_stream(range(20), correlation=0.9)
    torch.testing.assert_close(stream.x.norm(dim=-1), torch.ones(20, 400, dtype=F64))
    alike = (stream.x[:, 1:] * stream.x[:, :-1]).sum(-1).mean()
    assert 0.85 < alike < 0.93
    torch.testing.assert_close(stream.v, stream.x @ stream.teacher.mT)
    drifting = correlated_stream(range(2), drift=0.05)
    assert (drifting.v[:, 0] - (drifting.x[:, :1] @ drifting.teacher.mT)[:, 0]).abs().max() > 0.1
    assert stream.error(stream.teacher).max() == 0
    with pytest.raises(ValueError, match=r"correlation in \[0, 1\)"):
        correlated_stream([0], correlation=1.0)


def test_teachers_are_what_they_are_called() -> None:
    for kind in ("linear", "bent", "even"):
        x, u = teacher_stream([0, 1], kind, steps=50)
        assert x.shape == u.shape == (2, 50, 16)
        torch.testing.assert_close(u.square().mean((1, 2)), torch.ones(2, dtype=F64))
    x, u = teacher_stream([0], "linear", steps=50)
    solution = torch.linalg.lstsq(x[0], u[0]).solution
    assert (x[0] @ solution - u[0]).abs().max() < 1e-10
    with pytest.raises(ValueError, match="linear, bent, even"):
        teacher_stream([0], "odd")


def test_the_matrix_memory_is_the_delta_rule_and_predicts_before_it_is_told() -> None:
    x, u = teacher_stream([0, 1], "bent", steps=40)
    error = prediction_error(x, u, [0.03], "matrix")
    M, total = torch.zeros(2, 16, 16, dtype=F64), torch.zeros(2, dtype=F64)
    for t in range(40):
        if t >= 30:
            total += ((M @ x[:, t, :, None])[..., 0] - u[:, t]).square().mean(-1) / 10
        M = delta(M, x[:, t], u[:, t], lr=0.03)
    torch.testing.assert_close(error[0], total, rtol=1e-11, atol=0)
    with pytest.raises(ValueError, match="mean, matrix, network"):
        prediction_error(x, u, [0.1], "tree")


def test_the_network_memory_descends_on_its_squared_error() -> None:
    x, u = teacher_stream([0], "linear", steps=2)
    slow, fast = prediction_error(x, u, [0.0, 0.05], "network", hidden=8)[:, 0]
    assert slow == pytest.approx(u[0, 1].square().mean().item())
    A = torch.zeros(16, 8, dtype=F64, requires_grad=True)
    B = torch.randn(8, 17, generator=torch.Generator().manual_seed(0), dtype=F64) / 4
    B[:, -1] *= 4
    h = (B @ torch.cat([x[0, 0], torch.ones(1, dtype=F64)])).tanh()
    (0.5 * (A @ h - u[0, 0]).square().sum()).backward()
    after = (-0.05 * A.grad) @ (B @ torch.cat([x[0, 1], torch.ones(1, dtype=F64)])).tanh()  # B moves once A is not 0
    assert fast.item() == pytest.approx((after - u[0, 1]).square().mean().item(), rel=1e-10)


@pytest.mark.parametrize(("beta", "erase"), [(0.9, 0.0), (0.8, 0.6)])
def test_the_quick_loop_takes_the_steps_of_the_class(beta: float, erase: float) -> None:
    curvature, start = curvatures(100, 6), draws([0, 1], 6)
    noise = 0.1 * draws([5, 6], 40, 6)
    settings = (torch.tensor([0.3], dtype=F64), torch.tensor([beta], dtype=F64), torch.tensor([erase], dtype=F64))
    quick = heights(curvature, start, *settings, steps=40, noise=noise)
    make = lambda groups: DeltaMomentum(groups, beta=beta, erase=erase, stacked=True)  # noqa: E731
    gradient = lambda W, t: curvature * W + noise[:, None, t]  # noqa: E731
    W = sweep(make, [{"lr": 0.3}], start[:, None], gradient, 40)[0]
    torch.testing.assert_close(quick, 0.5 * (curvature * W.square()).sum(-1)[..., 0], rtol=1e-10, atol=1e-14)
    if erase == 0.0:
        plain = sweep(lambda groups: Momentum(groups, beta=beta), [{"lr": 0.3}], start[:, None], gradient, 40)[0]
        torch.testing.assert_close(W, plain, rtol=1e-12, atol=1e-13)


def test_curvatures() -> None:
    values = curvatures(1000, 7)
    assert values[0].item() == pytest.approx(1e-3) and values[-1].item() == pytest.approx(1.0)
    assert (values[1:] / values[:-1]).std() < 1e-9
    with pytest.raises(ValueError, match="condition >= 1"):
        curvatures(0.5)


def test_the_winding_valley_refuses_nonsense() -> None:
    for bad in ({"wall": 0.0}, {"bend": float("nan")}, {"bends": float("inf")}):
        with pytest.raises(ValueError, match="wall > 0"):
            bent_valley(**bad)
