"""The contest of HOPE and the Transformer: the record is complete and fair by its own rules, and can be made again."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch

import nlcore.data
from nlcore.hope import HopeConfig, HopeLM, contest, measures
from nlcore.hope.contest import CHANGES, CONTESTS, SAME_TIME, TUNING_SEED, learn, trained, tuned_as, untrained
from nlcore.hope.watching import there_and_back, watch
from nlcore.sweeps import load_sweep

RECORD = load_sweep("hope_and_transformer")


def row(task: str, name: str, seed: int) -> dict[str, Any]:
    found: dict[str, Any] = RECORD["results"][task][name]["seeds"][str(seed)]
    return found


def test_the_record_is_complete_and_every_family_was_tuned_alike() -> None:
    for task, one in CONTESTS.items():
        results = RECORD["results"][task]
        assert set(results) == set(one.models)
        assert len(one.models) == len(set(one.models)) and one.seeds >= 3
        for name in one.models:
            assert list(results[name]["seeds"]) == [str(seed) for seed in range(one.seeds)]  # paired by their order
            tuning = results[tuned_as(name)]["tuning"]
            assert set(tuning) == {str(rate) for rate in one.rates}
            best = min(one.rates, key=lambda rate: tuning[str(rate)].get("tuning_loss", float("inf")))
            assert all(found["rate"] == best for found in results[name]["seeds"].values())
    assert TUNING_SEED not in range(max(one.seeds for one in CONTESTS.values()))


def test_on_text_no_best_rate_is_the_largest_of_the_grid() -> None:
    """A larger one could be better still, and the comparison unfair."""
    one = CONTESTS["language"]
    for name in {tuned_as(name) for name in one.models}:
        assert row("language", name, 0)["rate"] < max(one.rates), name


def test_both_sides_have_about_the_same_number_of_weights() -> None:
    for task in CONTESTS:
        counts = {name: row(task, name, 0)["parameters"] for name in CONTESTS[task].models}
        assert max(counts.values()) < 1.08 * min(counts.values()), counts


def test_the_transformer_with_the_time_of_hope_had_it() -> None:
    for seed, name in product(range(CONTESTS["language"].seeds), SAME_TIME):
        hope, other = row("language", "hope", seed), row("language", name, seed)
        assert other["steps"] > 2 * hope["steps"]
        assert 0.8 < other["cpu_seconds"] / hope["cpu_seconds"] < 1.3


def test_the_smallest_model_comes_out_again() -> None:
    stored = row("stream", "transformer_conv", 0)
    model, again = learn("stream", "transformer_conv", 0, stored["rate"])
    assert abs(again["loss"] - stored["loss"]) < 0.03
    end = slice(80, 96)
    nats = torch.tensor(measures.measure("stream", "transformer_conv", model)["nats"]["as trained"])
    assert abs(nats[end].mean() - torch.tensor(stored["nats"]["as trained"])[end].mean()) < 0.05
    kept = trained("stream", "transformer_conv").state_dict()
    gaps = [(kept[name] - weight).abs().max() for name, weight in model.state_dict().items()]
    assert max(gaps) < 0.3  # half precision, and another machine


@pytest.mark.parametrize("task", ["stream", "language"])
def test_a_stored_hope_reads_as_the_record_says(task: str) -> None:
    model, stored = trained(task, "hope"), row(task, "hope", 0)
    if task == "stream":
        nats = torch.tensor(measures.along_the_stream(model, {"as trained": ()})["as trained"])
        assert abs(nats.mean() - torch.tensor(stored["nats"]["as trained"]).mean()) < 0.01
    else:
        places = measures.by_position("hope", model)["carried"]
        assert max(abs(a - b) for a, b in zip(places, stored["positions"]["carried"], strict=True)) < 0.02


def test_checkpoints_are_small() -> None:
    folder = Path(nlcore.data.__file__).parent / "checkpoints"
    names = [f"{task}_{name}.pt" for task, one in CONTESTS.items() for name in one.live]
    assert len(names) == 4 and sum((folder / name).stat().st_size for name in names) < 1_000_000


def test_every_change_is_one_setting_and_every_model_can_be_built() -> None:
    for task, one in CONTESTS.items():
        for name in one.models:
            model = untrained(task, name, 3)
            assert sum(weight.numel() for weight in model.parameters()) == row(task, name, 0)["parameters"]
    assert all(len(changes) <= 1 for changes in CHANGES.values())
    with pytest.raises(ValueError, match="expected one of the tasks stream, language"):
        untrained("chess", "hope")
    with pytest.raises(ValueError, match="expected one of the models hope"):
        untrained("language", "mamba")


def test_the_new_era_and_the_tuning_era_are_trained_on_by_nobody() -> None:
    assert {contest.READ_ERA, contest.TUNING_ERA}.isdisjoint(contest.TRAINED_ERAS)
    batch = contest.window(torch.Generator().manual_seed(0))
    assert batch.tokens.shape == (contest.ROWS, contest.LENGTH)


def test_watching_counts_updates_and_changes_nothing() -> None:
    torch.manual_seed(0)
    model = HopeLM(HopeConfig.tiny(8, dim=8, blocks=2, chunk=4, periods=(4, 12))).double()
    tokens = torch.randint(8, (3, 25), generator=torch.Generator().manual_seed(0))
    seen = watch(model, tokens, piece=1)
    assert list(seen.moved) == [level.name for level in model.levels()]
    for name, period in (("cms 1", 4), ("cms 2", 12)):
        places = (seen.moved[f"block 2: {name}"] > 0).nonzero().flatten().tolist()
        assert places == list(range(period, 24, period))
    assert (seen.moved["block 1: memory"] > 0).all()
    with torch.no_grad():
        logits, _ = model(tokens[:, :-1])
    nats = torch.nn.functional.cross_entropy(logits.mT, tokens[:, 1:], reduction="none").mean(0)
    torch.testing.assert_close(seen.nats, nats, rtol=0, atol=1e-10)
    assert model.training
    held = watch(model, tokens, piece=5, frozen=("all",))
    assert all((moved == 0).all() and len(moved) == 5 for moved in held.moved.values())
    with pytest.raises(ValueError, match="at least 2 tokens"):
        watch(model, tokens[:, :1])


def test_there_and_back_goes_on_in_a_where_it_was_left() -> None:
    a, b = torch.arange(100), 1000 + torch.arange(50)
    walks = there_and_back(a, b, 10, 4, torch.Generator().manual_seed(0))
    assert walks.shape == (4, 31)
    for walk in walks:
        assert walk[:10].tolist() == list(range(int(walk[0]), int(walk[0]) + 10))
        assert walk[20:].tolist() == list(range(int(walk[0]) + 10, int(walk[0]) + 21))
        assert (walk[10:20] >= 1000).all()
    with pytest.raises(ValueError, match="text A needs at least 21 tokens"):
        there_and_back(a[:20], b, 10, 4, torch.Generator())
    with pytest.raises(ValueError, match="text B needs at least 10 tokens"):
        there_and_back(a, b[:9], 10, 4, torch.Generator())
