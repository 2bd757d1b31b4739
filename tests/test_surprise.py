"""What layers are surprised by, held against autograd."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from nlcore.memory import hebbian
from nlcore.optimizers import SGD
from nlcore.surprise import layer_writes, local_surprise, votes


@pytest.mark.parametrize("shape", [(), (7,), (2, 3)])
def test_local_surprise_is_the_gradient_of_the_cross_entropy(shape: tuple[int, ...]) -> None:
    logits = (3 * torch.randn(*shape, 5, dtype=torch.float64)).requires_grad_()
    labels = torch.randint(5, shape)
    cross_entropy(logits.reshape(-1, 5), labels.reshape(-1), reduction="sum").backward()
    assert logits.grad is not None
    torch.testing.assert_close(local_surprise(logits.detach(), labels), logits.grad, rtol=0, atol=1e-15)


def test_local_surprise_is_balanced_and_bounded() -> None:
    u = local_surprise(20 * torch.randn(200, 10, dtype=torch.float64), torch.randint(10, (200,)))
    assert u.sum(-1).abs().max() < 1e-14
    assert u.norm(dim=-1).max() <= math.sqrt(2) + 1e-12


def test_every_wrong_answer_surprises_by_at_least_the_root_of_one_half() -> None:
    logits, labels = torch.randn(5000, 4, dtype=torch.float64), torch.randint(4, (5000,))
    wrong = logits.argmax(-1) != labels
    assert local_surprise(logits, labels)[wrong].norm(dim=-1).min() > 1 / math.sqrt(2)


def test_local_surprise_of_no_rows_is_empty() -> None:
    assert local_surprise(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64)).shape == (0, 3)


@pytest.mark.parametrize(
    ("logits", "labels", "says"),
    [
        (torch.zeros(2, 3), torch.tensor([0, 3]), "between 0 and 2, got 0 to 3"),
        (torch.zeros(2, 3), torch.tensor([-1, 0]), "got -1 to 0"),
        (torch.zeros(2, 3), torch.tensor([0]), "one label for each row"),
        (torch.tensor(1.0), torch.tensor(0), "one label for each row"),
    ],
)
def test_local_surprise_refuses_what_does_not_fit(logits: torch.Tensor, labels: torch.Tensor, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        local_surprise(logits, labels)


def test_local_surprise_refuses_labels_that_are_not_class_numbers() -> None:
    with pytest.raises(TypeError, match="float32"):
        local_surprise(torch.zeros(2, 3), torch.zeros(2))


def test_votes_add_up_to_the_answer_of_the_written_memory() -> None:
    keys, surprises = torch.randn(30, 6, dtype=torch.float64), torch.randn(30, 4, dtype=torch.float64)
    query, M = torch.randn(6, dtype=torch.float64), torch.zeros(4, 6, dtype=torch.float64)
    for x, u in zip(keys, surprises, strict=True):
        M = hebbian(M, x, -u, lr=0.3)
    shares = votes(keys, surprises, 0.3, query)
    assert shares.shape == (30, 4)
    torch.testing.assert_close(shares.sum(0), M @ query, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(
    ("keys", "surprises", "query"), [((3, 4), (2, 5), (4,)), ((3, 4), (3, 5), (5,)), ((4,), (3, 5), (4,))]
)
def test_votes_refuse_what_does_not_fit(
    keys: tuple[int, ...], surprises: tuple[int, ...], query: tuple[int, ...]
) -> None:
    with pytest.raises(ValueError, match="expected keys"):
        votes(torch.zeros(keys), torch.zeros(surprises), 0.1, torch.zeros(query))


def network(inplace: bool = False) -> nn.Sequential:
    layers = [nn.Linear(6, 5, bias=False), nn.ReLU(inplace=inplace), nn.Linear(5, 4, bias=False), nn.Tanh()]
    return nn.Sequential(*layers, nn.Linear(4, 3, bias=False)).double()


@pytest.mark.parametrize("inplace", [False, True])
def test_layer_writes_are_what_one_optimizer_step_writes(inplace: bool) -> None:
    model, x = network(inplace), torch.randn(6, dtype=torch.float64)

    def loss(z: torch.Tensor) -> torch.Tensor:
        return cross_entropy(z, torch.tensor(2))

    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    writes = layer_writes(model, x, loss)
    assert all(weight.grad is None for weight in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())
    optimizer = SGD(model.parameters(), lr=0.1)
    loss(model(x)).backward()
    optimizer.step()
    assert [write.name for write in writes] == ["0", "2", "4"]
    for write, (name, weight) in zip(writes, model.named_parameters(), strict=True):
        written = hebbian(before[name], write.key, -write.surprise, lr=0.1)
        torch.testing.assert_close(weight.detach(), written, rtol=0, atol=1e-15)


def test_layer_writes_of_a_batch_add_up_to_the_gradient() -> None:
    model, x, labels = network(), torch.randn(8, 6, dtype=torch.float64), torch.randint(3, (8,))
    writes = layer_writes(model, x, lambda z: cross_entropy(z, labels))
    cross_entropy(model(x), labels).backward()
    for write, weight in zip(writes, model.parameters(), strict=True):
        torch.testing.assert_close(write.surprise.mT @ write.key, weight.grad, rtol=1e-12, atol=1e-15)


def test_layer_writes_of_a_frozen_model_and_of_a_layer_used_twice() -> None:
    layer = nn.Linear(3, 3).requires_grad_(False)
    x = torch.randn(3)
    writes = layer_writes(nn.Sequential(layer, layer), x, lambda z: z.sum())
    assert len(writes) == 2
    torch.testing.assert_close(writes[1].key, layer(x))
    torch.testing.assert_close(writes[0].surprise, layer.weight.sum(0))
    assert layer.weight.grad is None


def test_layer_writes_say_what_is_wrong() -> None:
    with pytest.raises(ValueError, match=r"holds no nn\.Linear"):
        layer_writes(nn.ReLU(), torch.zeros(2), lambda z: z.sum())
    with pytest.raises(ValueError, match="one number"):
        layer_writes(nn.Linear(2, 2), torch.zeros(2), lambda z: z)
    forgetful = nn.Sequential(nn.Linear(2, 2), _Forget(), nn.Linear(2, 2))
    with pytest.raises(ValueError, match="answer of layer 0"):
        layer_writes(forgetful, torch.zeros(2), lambda z: z.sum())


class _Forget(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(x)
