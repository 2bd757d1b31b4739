"""The loop: right losses, right order, clear errors, quiet when asked."""

import pytest
import torch
from torch import nn

from nlcore.optimizers import SGD, Adam
from nlcore.tasks import digits
from nlcore.training import accuracy, batches, evaluate, fit


def model(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))


def test_it_learns_digits() -> None:
    data, net = digits(), model()
    assert accuracy(net, data.x_test, data.y_test) < 0.3
    random = torch.Generator().manual_seed(0)
    losses = fit(net, Adam(net.parameters(), lr=0.01), data.x_train, data.y_train, steps=300, generator=random)
    assert len(losses) == 300 and losses[-1] < 0.3 < losses[0]
    assert accuracy(net, data.x_test, data.y_test) > 0.9
    assert evaluate(net, data.x_test, data.y_test) < 0.4


def test_it_is_the_plain_loop() -> None:
    data, net, plain = digits(), model(), model()
    x, y = data.x_train[:40], data.y_train[:40]
    same_order = torch.Generator().manual_seed(3)
    losses = fit(net, SGD(net.parameters(), lr=0.1), x, y, steps=5, batch_size=8, generator=same_order)
    for value, rows in zip(losses, batches(40, 8, 5, torch.Generator().manual_seed(3)), strict=True):
        loss = nn.functional.cross_entropy(plain(x[rows]), y[rows])
        assert value == pytest.approx(loss.item())
        plain.zero_grad()
        loss.backward()
        with torch.no_grad():
            for p in plain.parameters():
                p -= 0.1 * p.grad
    torch.testing.assert_close(net[0].weight, plain[0].weight)


def test_batches_are_whole_passes_without_repeats() -> None:
    rows = list(batches(10, 3, 7, torch.Generator().manual_seed(0)))
    assert [len(part) for part in rows] == [3] * 7
    for start in (0, 3):
        assert len(torch.cat(rows[start : start + 3]).unique()) == 9
    assert list(batches(10, 3, 0)) == []


def test_on_step_sees_every_step_and_the_bar_can_be_hidden(capsys: pytest.CaptureFixture, monkeypatch) -> None:
    data, net, seen = digits(), model(), []
    arguments = {"steps": 4, "batch_size": 8, "on_step": seen.append}
    fit(net, SGD(net.parameters()), data.x_train, data.y_train, **arguments)
    assert seen == [0, 1, 2, 3] and capsys.readouterr().err == ""
    monkeypatch.setenv("NLCORE_PROGRESS", "1")
    fit(net, SGD(net.parameters()), data.x_train, data.y_train, **arguments)
    assert "training" in capsys.readouterr().err


def test_bad_input_is_named() -> None:
    data, net = digits(), model()
    optimizer = SGD(net.parameters())
    with pytest.raises(ValueError, match="same length, got 1400 and 397"):
        fit(net, optimizer, data.x_train, data.y_test, steps=1)
    for size in (0, 1401):
        with pytest.raises(ValueError, match=f"between 1 and the 1400 examples there are, got {size}"):
            fit(net, optimizer, data.x_train, data.y_train, steps=1, batch_size=size)
    with pytest.raises(ValueError, match="steps must be >= 0"):
        batches(5, 1, -1)
    with pytest.raises(ValueError, match="same length, at least 1"):
        accuracy(net, data.x_test[:0], data.y_test[:0])
    with pytest.raises(ValueError, match="same length, at least 1"):
        evaluate(net, data.x_test[:2], data.y_test[:3])


def test_a_loss_that_explodes_is_reported() -> None:
    data, net = digits(), model()
    with pytest.raises(FloatingPointError, match="try a smaller learning rate"):
        fit(net, SGD(net.parameters(), lr=1e30), data.x_train, data.y_train, steps=20)
