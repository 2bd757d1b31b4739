"""The reservoir: of fixed size, uniform, and the same after saving."""

from __future__ import annotations

import io
from collections import Counter

import pytest
import torch

from nlcore.continual import Reservoir


def numbers(start: int, stop: int) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.arange(start, stop, dtype=torch.float64)
    return x.unsqueeze(-1).expand(-1, 2), x.long()


def test_while_there_is_room_all_is_kept_in_order() -> None:
    buffer = Reservoir(5)
    buffer.add(*numbers(0, 3))
    buffer.add(*numbers(3, 5))
    x, y = buffer.columns
    assert y.tolist() == [0, 1, 2, 3, 4] and x.tolist() == [[i, i] for i in range(5)] and x.dtype == torch.float64


def test_it_never_grows_and_rows_stay_together() -> None:
    buffer = Reservoir(7)
    for start in range(0, 100, 10):
        buffer.add(*numbers(start, start + 10))
        x, y = buffer.columns
        assert len(buffer) == len(y) == 7 and torch.equal(x[:, 0].long(), y) and torch.equal(x[:, 1].long(), y)
        assert len(set(y.tolist())) == 7
    assert buffer.seen == 100 and str(buffer) == "Reservoir: 7 of 7 places taken, 100 examples seen"


@pytest.mark.parametrize("batches", [[40], [1] * 40, [7, 3, 30]])
def test_each_example_is_kept_as_often_as_any_other(batches: list[int]) -> None:
    """A chi-squared test: with 39 degrees of freedom it exceeds 72.1 once in a thousand times."""
    capacity, n, runs = 8, 40, 500
    kept: Counter[int] = Counter()
    for seed in range(runs):
        buffer, start = Reservoir(capacity, seed=seed), 0
        for size in batches:
            buffer.add(torch.arange(start, start + size))
            start += size
        kept.update(buffer.columns[0].tolist())
    share = capacity / n
    deviation = sum((kept[i] - runs * share) ** 2 for i in range(n)) / (runs * share * (1 - share))
    assert deviation * (n - 1) / n < 72.1
    assert sum(kept.values()) == runs * capacity


def test_it_equals_algorithm_r_step_by_step() -> None:
    buffer, slow = Reservoir(4, seed=9), []
    generator = torch.Generator().manual_seed(9)
    drawn = torch.rand(30, generator=generator, dtype=torch.float64).tolist()
    for t in range(1, 31):
        if t <= 4:
            slow.append(t)
        elif (place := int(drawn[t - 1] * t)) < 4:
            slow[place] = t
    buffer.add(torch.arange(1, 31))
    assert buffer.columns[0].tolist() == slow


def test_draws_are_uniform_and_without_repeats_while_there_are_enough() -> None:
    buffer = Reservoir(6)
    buffer.add(torch.arange(6))
    (drawn,) = buffer.sample(6)
    assert sorted(drawn.tolist()) == list(range(6))
    counts = Counter(torch.cat([buffer.sample(2)[0] for _ in range(3000)]).tolist())
    assert all(abs(counts[i] - 1000) < 4 * 1000**0.5 for i in range(6))
    assert Counter(buffer.sample(15)[0].tolist()).most_common()[-1][1] == 2  # 15 from 6: each 2 or 3 times


def test_saved_and_loaded_it_goes_on_alike() -> None:
    one = Reservoir(5, seed=1)
    one.add(*numbers(0, 20))
    file = io.BytesIO()
    torch.save(one.state_dict(), file)
    file.seek(0)
    other = Reservoir(5, seed=2)
    other.load_state_dict(torch.load(file, weights_only=True))
    for buffer in (one, other):
        buffer.add(*numbers(20, 60))
    assert all(torch.equal(a, b) for a, b in zip(one.columns, other.columns, strict=True))
    assert torch.equal(one.sample(3)[1], other.sample(3)[1]) and one.seen == other.seen == 60
    with pytest.raises(ValueError, match="holds 6 examples, the saved one 5"):
        Reservoir(6).load_state_dict(one.state_dict())


def test_bad_input_is_refused_with_words() -> None:
    with pytest.raises(ValueError, match="capacity must be at least 1, got 0"):
        Reservoir(0)
    with pytest.raises(TypeError, match="capacity must be a whole number"):
        Reservoir(2.5)  # type: ignore[arg-type]
    buffer = Reservoir(3)
    with pytest.raises(ValueError, match="is empty: add examples before"):
        buffer.sample(1)
    with pytest.raises(ValueError, match=r"same number of rows, such as x and y; got shapes \[\(2,\), \(3,\)\]"):
        buffer.add(torch.zeros(2), torch.zeros(3))
    with pytest.raises(ValueError, match="got shapes"):
        buffer.add()
    buffer.add(torch.zeros(2, 4), torch.zeros(2))
    with pytest.raises(ValueError, match=r"stores rows of shapes \[\(4,\), \(\)\], got \[\(5,\), \(\)\]"):
        buffer.add(torch.zeros(2, 5), torch.zeros(2))
    with pytest.raises(ValueError, match="n must be at least 1"):
        buffer.sample(0)
