"""The contest of all optimizers: its stored result is complete, fair by its own rules, and can be run again."""

import statistics

import pytest
import torch

from nlcore import optimizers
from nlcore.contest import CONTESTANTS, KEPT, compete, network, search, standardised, step_times
from nlcore.sweeps import load_sweep
from nlcore.tasks import Images, digits, fashion

RECORD = load_sweep("optimizers_on_images")
SETS = {
    "digits": digits,
    "Fashion": fashion,
    "digits, standardised": lambda: standardised(digits()),
    "Fashion, standardised": lambda: standardised(fashion()),
}


def test_every_optimizer_of_the_course_takes_part() -> None:
    images = few()
    made = {type(one.make(network(images, 0), **one.variants[0])).__name__ for one in CONTESTANTS.values()}
    kinds = {name for name in optimizers.__all__ if isinstance(getattr(optimizers, name), type)}
    assert made == kinds - {"MemoryOptimizer", "PeriodicOptimizer"}


def test_the_record_is_complete_and_its_search_was_fair() -> None:
    assert not set(RECORD["tuning_seeds"]) & set(RECORD["seeds"]) and len(RECORD["seeds"]) >= 10
    assert set(RECORD["results"]) == set(SETS)
    assert all(set(times) == set(CONTESTANTS) for times in RECORD["microseconds"].values())
    for by_budget in RECORD["results"].values():
        assert [int(steps) for steps in by_budget] == RECORD["budgets"]
        for rows in by_budget.values():
            assert set(rows) == set(CONTESTANTS)
            for name, row in rows.items():
                assert 16 <= row["tried"] <= 32, name
                assert len(row["accuracy"]) == len(row["loss"]) == len(RECORD["seeds"])


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ("digits", "Muon"),
        ("Fashion", "momentum"),
        ("digits", "slow + fast"),
        ("Fashion, standardised", "delta momentum"),
    ],
)
def test_a_part_of_the_record_comes_out_again(words: str, name: str) -> None:
    row = RECORD["results"][words]["300"][name]
    images = SETS[words]()
    again = [compete(name, row["settings"], images, seed, 300, tuning=False)["accuracy"] for seed in (0, 7)]
    assert abs(statistics.mean(again) - statistics.mean(row["accuracy"][seed] for seed in (0, 7))) < 0.015


def few() -> Images:
    all_images = digits()
    return Images(
        all_images.x_train[:400],
        all_images.y_train[:400],
        all_images.x_test[:50],
        all_images.y_test[:50],
        all_images.names,
        all_images.side,
    )


@pytest.mark.parametrize("name", CONTESTANTS)
def test_a_run_is_repeatable_and_measures_both_sets(name: str) -> None:
    settings = {"lr": CONTESTANTS[name].lowest, **CONTESTANTS[name].variants[1]}
    first, second = (compete(name, settings, few(), 3, 12, tuning=True) for _ in range(2))
    assert first["loss"] == second["loss"] and 0 <= first["accuracy"] <= 1
    assert compete(name, settings, few(), 3, 12, tuning=False)["loss"] != first["loss"]


def test_a_search_leaves_the_edge_and_counts_what_it_tried() -> None:
    found = search("SGD", few(), range(2), steps=25, rates=3)
    assert not found["at_edge"] and found["tried"] > 6 and found["settings"]["lr"] > 0.05
    stopped = search("SGD", few(), range(1), steps=5, rates=2, most=3)
    assert stopped["at_edge"] and stopped["tried"] == 6


def test_standardised_pixels_have_mean_zero_and_spread_one_where_they_change() -> None:
    images = few()
    pixels = standardised(images).x_train[KEPT:]
    changes = images.x_train[KEPT:].std(0) > 0
    assert 0 < changes.sum() < len(changes)
    torch.testing.assert_close(pixels.mean(0), torch.zeros(64), rtol=0, atol=1e-5)
    torch.testing.assert_close(pixels.std(0), changes.float(), rtol=1e-5, atol=1e-6)


def test_every_optimizer_is_timed_in_turn() -> None:
    times = step_times(few(), rounds=2, steps=2)
    assert set(times) == set(CONTESTANTS) and min(times.values()) > 0


def test_divergence_and_unknown_names() -> None:
    assert compete("momentum", {"lr": 1e30}, few(), 0, 5, tuning=True)["loss"] == float("inf")
    with pytest.raises(ValueError, match="expected one of SGD, momentum"):
        compete("Lion", {"lr": 0.1}, few(), 0, 5, tuning=True)
