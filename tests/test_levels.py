"""Levels: Def. 2, the words, and the trace of updates."""

import math

import pytest
import torch
from torch import nn

from nlcore.levels import Level, Slower, UpdateTrace, describe, nest, order_levels
from nlcore.optimizers import Adam, Momentum, MultiscaleMomentum


def names(*levels: Level) -> list[list[str]]:
    return [[part.name for part in level] for level in order_levels(levels)]


def test_more_frequent_is_faster_whatever_the_order_given() -> None:
    parts = [Level("frozen", math.inf), Level("each", 1), Level("attention", 0), Level("slow", 64), Level("mid", 8)]
    assert names(*parts) == [["attention"], ["each"], ["mid"], ["slow"], ["frozen"]]
    assert names(*reversed(parts)) == names(*parts)


def test_equal_frequency_is_split_by_who_needs_whom_along_chains() -> None:
    a, b, c = Level("a", 1), Level("b", 1, needs=("a",)), Level("c", 1, needs=("b",))
    assert names(c, b, a) == [["a"], ["b"], ["c"]]


def test_independent_parts_share_a_level() -> None:
    m, v, w = Level("m", 1), Level("v", 1), Level("w", 1, needs=("m", "v"))
    assert names(w, m, v) == [["m", "v"], ["w"]]


def test_a_need_of_another_frequency_does_not_split() -> None:
    slow = Level("slow", 10)
    assert names(slow, Level("a", 1, needs=("slow",)), Level("b", 1)) == [["a", "b"], ["slow"]]


def test_frequency_and_rhythm() -> None:
    assert Level("a", 4).frequency == 0.25
    assert Level("a", 0).frequency == math.inf
    assert Level("a", math.inf).frequency == 0.0
    assert [Level("a", p).rhythm for p in (0, 1, 16, math.inf)] == [
        "at every token, anew", "every step", "every 16 steps", "never (frozen)",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("levels", "words"),
    [
        ([Level("a", 1), Level("a", 2)], "its own name"),
        ([Level("a", 1, needs=("z",))], "none of"),
        ([Level("a", 1, needs=("b",)), Level("b", 1, needs=("a",))], "a -> b -> a"),
    ],
)
def test_a_nest_that_makes_no_sense_is_refused(levels: list[Level], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        order_levels(levels)


@pytest.mark.parametrize("period", [-1, math.nan])
def test_bad_periods_are_refused(period: float) -> None:
    with pytest.raises(ValueError, match="period must be >= 0"):
        Level("a", period)
    with pytest.raises(ValueError, match="needs a name"):
        Level("", 1)


def test_describe_lists_every_part_under_its_level() -> None:
    text = describe([Level("w", 1, "weights", ("m",), 1000), Level("m", 1, "gradients")])
    assert text.splitlines() == [
        "2 levels, the fastest first",
        "  1. m  every step  gradients",
        "  2. w  every step  weights [1,000 numbers]",
    ]


def test_trace_says_who_moved_when_and_how_far() -> None:
    fast, slow = torch.zeros(2, dtype=torch.float64), [torch.zeros(1, 2), torch.zeros(3)]
    trace = UpdateTrace({"fast": [fast], "slow": slow})
    for step in range(1, 5):
        fast += torch.tensor([3.0, 4.0])
        if step % 2 == 0:
            slow[1] -= 1.0
        trace.record()
    assert trace.moved.tolist() == [[True, False], [True, True]] * 2
    assert trace.updates() == {"fast": 4, "slow": 2}
    torch.testing.assert_close(trace.moved_by[:, 0], torch.full((4,), 5.0, dtype=torch.float64))
    torch.testing.assert_close(trace.from_start[-1], torch.tensor([20.0, 2 * math.sqrt(3)], dtype=torch.float64))


def test_trace_is_empty_before_the_first_record_and_needs_something_to_watch() -> None:
    assert UpdateTrace({"a": [torch.zeros(1)]}).moved_by.shape == (0, 1)
    for nothing in ({}, {"a": []}):
        with pytest.raises(ValueError, match="at least one"):
            UpdateTrace(nothing)


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))


class WithAttention(nn.Module):
    """A model that lists its own levels."""

    def levels(self) -> list[Level]:
        return [Level("attention", 0, "the context"), Level("fast weights", 1, "the tokens, fading")]


def test_a_nest_joins_model_optimizer_and_what_is_slower_or_faster() -> None:
    model = network()
    optimizer = MultiscaleMomentum(model[1].parameters(), period=10)
    average = Level("average of the weights", 500, "the weights of each epoch", needs=("weights W",))
    parts = nest(model, average, optimizer, Level("attention", 0))
    assert [[part.name for part in level] for level in order_levels(parts)] == [
        ["attention"],
        ["fast momentum m"],
        ["weights W"],
        ["slow momentum s"],
        ["average of the weights"],
        ["weights of Sequential"],
    ]
    assert [part.name for part in parts] == [part.name for level in order_levels(parts) for part in level]
    assert [part.frequency for part in parts] == [math.inf, 1.0, 1.0, 0.1, 0.002, 0.0]
    assert parts[-1].numbers == 16 and parts[2].numbers == 10  # a weight is counted once: where it is moved
    assert describe(parts).splitlines()[-1] == "  6. weights of Sequential   never (frozen)        given [16 numbers]"


def test_a_module_alone_is_frozen_and_one_that_is_trained_whole_is_a_part_of_its_optimizer() -> None:
    model = network()
    assert nest(model) == [Level("weights of Sequential", math.inf, "given", numbers=26)]
    assert nest(model, Momentum(model.parameters())) == nest(Momentum(model.parameters()))
    torch_parts = nest(model, torch.optim.Adam(model.parameters()))
    assert torch_parts == [Level("weights", 1, "what Adam writes into them", numbers=26)]


def test_slower_puts_two_clocks_into_one_unit_of_time() -> None:
    model = network()
    parts = nest(WithAttention(), Slower([Momentum(model.parameters()), Level("frozen", math.inf)], by=512), model)
    assert {part.name: part.period for part in parts} == {
        "attention": 0,
        "fast weights": 1,
        "momentum m": 512,
        "weights W": 512,
        "frozen": math.inf,
    }
    assert Slower(Slower(Level("attention", 0), 8), 2).by == 2
    assert nest(Slower(Slower(Level("w", 3), 8), 2))[0].period == 48
    assert nest(Slower(Level("token", 1), 1 / 512))[0].rhythm == "512 times a step"
    for by in (0, -1, math.inf, math.nan):
        with pytest.raises(ValueError, match="by > 0"):
            Slower(model, by)


def test_named_systems_keep_their_parts_apart() -> None:
    slow, fast = network(), network()
    parts = nest(fast=Adam(fast.parameters()), slow=Slower(Adam(slow.parameters()), 100))
    assert [part.name for part in parts][::3] == ["fast: first moment m", "slow: first moment m"]
    assert parts[2].needs == ("fast: first moment m", "fast: second moment v")
    assert len(order_levels(parts)) == 4
    with pytest.raises(ValueError, match="its own name"):
        nest(Adam(fast.parameters()), Adam(slow.parameters()))


def test_what_is_no_part_is_refused() -> None:
    for wrong in (3, "weights", torch.zeros(2)):
        with pytest.raises(TypeError, match="a nest is made of"):
            nest(wrong)
    for nothing in ((), (nn.ReLU(),), ([],)):
        with pytest.raises(ValueError, match="at least one part"):
            nest(*nothing)
