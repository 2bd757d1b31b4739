"""Training on token tasks: the recipe, reproducible runs, masks, and what is measured."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from nlcore.sequence.fitting import fit_tokens, nats_by_position, rate_at, token_accuracy, token_loss
from nlcore.tasks.formal import formal_language
from nlcore.tasks.tokens import TokenBatch


class Recurrent(nn.Module):
    """A tiny GRU with the interface of the models of the course."""

    def __init__(self, symbols: int = 2, dim: int = 16, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng([]):
            torch.manual_seed(seed)
            self.embed, self.head = nn.Embedding(symbols, dim), nn.Linear(dim, symbols)
            self.gru = nn.GRU(dim, dim, batch_first=True)

    def forward(
        self, tokens: Tensor, state: Tensor | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        h, state = self.gru(self.embed(tokens), state)
        return self.head(h), state


class Fixed(nn.Module):
    """Answers with stored logits, whatever is read; remembers the lengths it was told."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = nn.Parameter(logits)
        self.told: Tensor | None = None

    def forward(self, tokens: Tensor, state: None = None, lengths: Tensor | None = None) -> tuple[Tensor, None]:
        self.told = lengths
        return self.logits, state


def parity(generator: torch.Generator) -> TokenBatch:
    return formal_language("parity", 32, generator, lengths=(3, 12))


def some_batch() -> TokenBatch:
    targets = torch.tensor([[0, 1, -100, 1], [1, -100, -100, -100]])
    return TokenBatch(torch.zeros(2, 4, dtype=torch.int64), targets, torch.tensor([4, 2]))


def test_a_gru_learns_parity_and_goes_on_beyond_its_lengths() -> None:
    model = Recurrent()
    losses = fit_tokens(model, parity, steps=250, lr=2e-2)
    assert len(losses) == 250 and losses[0] == pytest.approx(math.log(2), abs=0.1) and losses[-1] < 0.05
    test = formal_language("parity", 100, torch.Generator().manual_seed(1), lengths=(24, 24))
    assert token_accuracy(model, test) == 1.0


def test_the_same_seed_gives_the_same_weights_and_another_does_not() -> None:
    torch.rand(3)  # the global generator plays no part
    models = [Recurrent() for _ in range(3)]
    losses = [fit_tokens(m, parity, steps=5, lr=1e-2, seed=s) for m, s in zip(models, (0, 0, 1), strict=True)]
    assert losses[0] == losses[1] != losses[2]
    for one, same in zip(models[0].parameters(), models[1].parameters(), strict=True):
        assert torch.equal(one, same)


def test_it_is_adamw_with_warm_up_cosine_and_clipping() -> None:
    model, twin, steps = Recurrent(), Recurrent(), 20
    fit_tokens(model, parity, steps=steps, lr=0.05, seed=3, clip=0.1, weight_decay=0.3)
    generator = torch.Generator().manual_seed(3)
    optimizer = torch.optim.AdamW(twin.parameters(), lr=0.05, betas=(0.9, 0.98), weight_decay=0.3)
    for step in range(steps):
        batch = parity(generator)
        optimizer.param_groups[0]["lr"] = 0.05 * rate_at(step, steps)
        loss = cross_entropy(twin(batch.tokens)[0].mT, batch.targets)
        optimizer.zero_grad()
        loss.backward()
        norm = torch.stack([p.grad.norm() for p in twin.parameters()]).norm()  # type: ignore[union-attr]
        for p in twin.parameters():
            p.grad *= min(1.0, 0.1 / float(norm))  # type: ignore[operator]
        optimizer.step()
    for one, other in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


def test_the_learning_rate_rises_for_a_tenth_and_falls_to_a_twentieth() -> None:
    rates = [rate_at(step, 100) for step in range(100)]
    assert rates[:10] == pytest.approx([0.1 * k for k in range(1, 11)])
    assert rates[10] == 1.0 and rates[-1] == pytest.approx(0.05) and rates[9:] == sorted(rates[9:], reverse=True)
    assert rates[10 + 45] == pytest.approx(0.525, abs=0.01)
    assert rate_at(0, 1) == 1.0 and rate_at(1, 2) == 1.0


def test_it_counts_the_steps_and_hides_the_bar(capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    seen: list[int] = []
    monkeypatch.setenv("NLCORE_PROGRESS", "0")
    assert fit_tokens(Recurrent(), parity, steps=0, lr=0.1) == []
    fit_tokens(Recurrent(), parity, steps=3, lr=0.1, on_step=seen.append)
    assert seen == [0, 1, 2] and capsys.readouterr().err == ""
    monkeypatch.delenv("NLCORE_PROGRESS")
    fit_tokens(Recurrent(), parity, steps=3, lr=0.1)
    assert "training" in capsys.readouterr().err


def test_a_loss_that_is_not_finite_stops_the_training() -> None:
    model = Fixed(torch.zeros(2, 4, 2))
    with pytest.raises(FloatingPointError, match="nan at step 2: try a smaller learning rate"):
        fit_tokens(model, lambda g: some_batch(), steps=9, lr=0.1, on_step=lambda step: spoil(model, step))


def spoil(model: Fixed, step: int) -> None:
    if step == 1:
        model.logits.data[0, 0, 0] = torch.nan


def test_only_asked_positions_count() -> None:
    logits = torch.zeros(2, 4, 2)
    logits[0, :, 1], logits[1, 0, 0] = 3.0, 1.0
    model, batch = Fixed(logits), some_batch()
    assert [len(part) for part in batch.split(1)] == [1, 1] and batch.split(1)[1].padding is not None
    assert token_accuracy(model, batch) == pytest.approx(2 / 4)
    right, wrong, other = math.log(1 + math.exp(-3)), math.log(1 + math.exp(3)), math.log(1 + math.exp(1))
    assert token_loss(model, batch).item() == pytest.approx((2 * right + wrong + other) / 4)
    by_place = nats_by_position(model, batch)
    assert by_place.dtype == torch.float64 and by_place[2].isnan()
    assert by_place[[0, 1, 3]].tolist() == pytest.approx([(wrong + other) / 2, right, right])


def test_the_model_hears_of_lengths_only_if_some_row_is_shorter() -> None:
    model = Fixed(torch.zeros(2, 4, 2))
    token_accuracy(model, some_batch())
    assert model.told is not None and model.told.tolist() == [4, 2]
    whole = TokenBatch(some_batch().tokens, some_batch().targets, torch.tensor([4, 4]))
    token_loss(model, whole)
    assert model.told is None


def test_accuracy_does_not_depend_on_how_many_rows_are_read_at_once() -> None:
    model, batch = Recurrent(), parity(torch.Generator().manual_seed(0))
    assert len({token_accuracy(model, batch, rows=rows) for rows in (1, 5, 32, 64)}) == 1


def test_accuracy_leaves_the_weights_alone() -> None:
    model = Recurrent()
    before = [p.clone() for p in model.parameters()]
    token_accuracy(model, parity(torch.Generator().manual_seed(0)))
    assert not model.training and all(p.grad is None for p in model.parameters())
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))


@pytest.mark.parametrize(("steps", "lr"), [(-1, 0.1), (3, 0.0), (3, -0.1), (3, math.nan), (3, math.inf)])
def test_bad_settings_are_named(steps: int, lr: float) -> None:
    with pytest.raises(ValueError, match="steps >= 0 and a learning rate above 0"):
        fit_tokens(Recurrent(), parity, steps=steps, lr=lr)


def test_nothing_asked_is_named() -> None:
    batch = TokenBatch(torch.zeros(2, 4, dtype=torch.int64), torch.full((2, 4), -100), torch.tensor([4, 4]))
    for measure in (token_accuracy, token_loss):
        with pytest.raises(ValueError, match="no position is asked"):
            measure(Fixed(torch.zeros(2, 4, 2)), batch)
