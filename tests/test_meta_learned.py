"""The contest of meta-learned memories: its record is complete, fair by its own rules, and can be run again in part."""

import math

import pytest
import torch

from nlcore.meta import variants
from nlcore.meta.learning import TESTING
from nlcore.meta.variants import BEST_FLAT, CONTROL, IMPORTANT, KINDS, MAP, NESTED_CMS, VARIANTS, run_variant, tune
from nlcore.metrics import confidence_interval
from nlcore.sweeps import load_sweep
from nlcore.tasks.contexts import best_possible, streams

RECORD = load_sweep("meta_learned_memories")
RESULTS = RECORD["results"]
MEASURES = ("online", "last", "retention", "longer")


def test_the_record_is_complete() -> None:
    assert RECORD["worlds"] == list(variants.WORLDS) and len(RECORD["worlds"]) >= 10
    assert list(RESULTS) == list(KINDS) == list(RECORD["floors"])
    for kind, rows in RESULTS.items():
        assert list(rows) == list(MAP[kind])
        for row in rows.values():
            assert all(len(row[measure]) == len(RECORD["worlds"]) for measure in MEASURES)
            assert all(math.isfinite(error) for measure in MEASURES for error in row[measure])


def test_the_search_was_fair() -> None:
    assert not set(RECORD["tuning_worlds"]) & set(RECORD["worlds"])
    rates, outer = RECORD["rates"], RECORD["outer_rates"]
    for rows in RESULTS.values():
        for name, row in rows.items():
            table = torch.tensor(row["errors"])
            assert table.shape == (len(rates), len(outer)), name
            best = table[rates.index(row["rate"]), outer.index(row["outer_rate"])]
            assert best == table.min(), name


def test_equal_starts_and_the_cost_is_what_was_counted() -> None:
    for rows in RESULTS.values():
        for name, row in rows.items():
            assert row["cost"] == VARIANTS[name].cost
            assert abs(row["written"] - row["cost"]) < 0.03, name  # periods of 3 leave a rest of the 128 steps
    assert RESULTS["aligned"][NESTED_CMS]["cost"] == 1 + 1 / 8 + 1 / 32
    assert {len(chain.periods) for chain in VARIANTS.values()} == {3}


def test_periods_and_resets_are_there_alone_together_and_not_at_all() -> None:
    twins = {(VARIANTS[name].periods, VARIANTS[name].resets) for name in IMPORTANT if VARIANTS[name].rates == "block"}
    both = {(1, 1, 1), variants.NESTED}, {(0, 0, 0), variants.RESETS}
    assert {(periods, resets) for periods in both[0] for resets in both[1]} <= twins


def test_nobody_is_better_than_the_best_possible_or_worse_than_zero_where_it_matters() -> None:
    for kind, rows in RESULTS.items():
        floors = RECORD["floors"][kind]
        for row in rows.values():
            assert all(low < error for low, error in zip(floors["best possible"], row["online"], strict=True))
            assert sum(row["online"]) < sum(floors["zero"])


def gap(kind: str, measure: str = "online", other: str = BEST_FLAT) -> list[float]:
    """Nested minus another variant, world by world."""
    ours, theirs = (RESULTS[kind][name][measure] for name in (NESTED_CMS, other))
    return [a - b for a, b in zip(ours, theirs, strict=True)]


def test_nested_memories_win_where_resets_fall_on_boundaries_and_only_there() -> None:
    assert confidence_interval(gap("aligned")).high < 0 and confidence_interval(gap("noise 1.0")).high < 0
    assert confidence_interval(gap("random phase")).low > 0 and confidence_interval(gap("random boundaries")).low > 0


def test_the_reset_wins_not_the_period() -> None:
    period = confidence_interval(gap("aligned", other=CONTROL))
    assert abs(period.mean) < 0.1 * abs(confidence_interval(gap("aligned")).mean)
    without = [RESULTS["aligned"][name]["online"] for name in ("CMS 1-8-32", "flat, rate a block")]
    assert confidence_interval([a - b for a, b in zip(*without, strict=True)]).low > -0.01


def test_more_outer_learning_keeps_the_order() -> None:
    rows = [RESULTS["aligned"][name] for name in (NESTED_CMS, BEST_FLAT)]
    nested, flat = (row["online, iterations doubled"] for row in rows)
    assert confidence_interval([a - b for a, b in zip(nested, flat, strict=True)]).high < 0


@pytest.mark.parametrize(("kind", "sign"), [("aligned", -1), ("random boundaries", 1)])
def test_a_part_of_the_record_comes_out_again(kind: str, sign: int) -> None:
    found = []
    for name in (NESTED_CMS, BEST_FLAT):
        row = RESULTS[kind][name]
        found.append(
            run_variant(name, kind, row["rate"], row["outer_rate"], (0, 1), iterations=15, number=16)["online"]
        )
    recorded = gap(kind)[:2]
    for nested, flat, difference in zip(*found, recorded, strict=True):
        assert sign * (nested - flat) > 0 and sign * difference > 0


def test_the_floors_come_out_again() -> None:
    given = streams((0, 1), number=64, draw=TESTING, dtype=torch.float64)
    again = best_possible(given).mean((1, 2)).tolist()
    assert again == pytest.approx(RECORD["floors"]["aligned"]["best possible"][:2], abs=1e-4)


def test_a_variant_can_be_tuned_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(variants, "SEARCHED", 2)
    monkeypatch.setattr(variants, "TUNING", (1000,))
    found = tune(NESTED_CMS, "random phase")
    assert found["rate"] in variants.RATES and found["outer_rate"] in variants.OUTER_RATES
