"""Levels: Def. 2, the words, and the trace of updates."""

import math

import pytest
import torch

from nlcore.levels import Level, UpdateTrace, describe, order_levels


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
