"""Sweeps: copies that do not feel each other, fair choices, stored results."""

import math
from importlib.resources import files
from pathlib import Path

import pytest
import torch

from nlcore.optimizers import Adam, DeltaMomentum, Momentum, Muon
from nlcore.sweeps import HUGE, best_setting, grid, load_sweep, save_sweep, sweep

MAKERS = {
    "momentum": lambda groups: Momentum(groups, beta=0.8),
    "adam": lambda groups: Adam(groups),
    "delta": lambda groups: DeltaMomentum(groups, stacked=True),
    "muon": lambda groups: Muon(groups, stacked=True),
}


def bowl(W: torch.Tensor, t: int) -> torch.Tensor:
    return W * torch.arange(1, 13, dtype=W.dtype).reshape(3, 4) / 12 + 0.01 * t


@pytest.mark.parametrize("name", MAKERS)
def test_a_copy_moves_as_if_it_were_alone(name: str) -> None:
    start = torch.randn(2, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    settings = [{"lr": lr} for lr in (0.01, 0.1, 0.3)]
    together = sweep(MAKERS[name], settings, start, bowl, 12)[0]
    alone = sweep(MAKERS[name], settings[1:2], start[1:], bowl, 12)[0]
    torch.testing.assert_close(together[1, 1], alone[0, 0], rtol=1e-11, atol=1e-12)


def test_it_takes_the_steps_of_a_plain_loop_and_watches_each() -> None:
    start = torch.ones(1, 2, dtype=torch.float64)
    seen = sweep(lambda g: Momentum(g, beta=0.5), [{"lr": 0.1}], start, lambda W, t: 2 * W, 3, lambda W, t: (t, W))
    m, W = torch.zeros(2, dtype=torch.float64), torch.ones(2, dtype=torch.float64)
    for step, (t, held) in enumerate(seen, start=1):
        m = 0.5 * m + 2 * W
        W = W - 0.1 * m
        assert t == step
        torch.testing.assert_close(held[0, 0], W, rtol=1e-13, atol=0)
    assert len(sweep(lambda g: Momentum(g), [{"lr": 0.1}], start, bowl_1, 4, lambda W, t: t if t == 2 else None)) == 1


def bowl_1(W: torch.Tensor, t: int) -> torch.Tensor:
    return W


def test_a_copy_that_diverges_disturbs_no_other() -> None:
    start = torch.ones(1, 2, dtype=torch.float64)
    steep = lambda W, t: 1e3 * W**3  # noqa: E731
    both = sweep(lambda g: Momentum(g, beta=0.0), [{"lr": 1e-5}, {"lr": 10.0}], start, steep, 60)[0]
    alone = sweep(lambda g: Momentum(g, beta=0.0), [{"lr": 1e-5}], start, steep, 60)[0]
    assert torch.equal(both[0], alone[0]) and both[1].abs().max() > HUGE / 10


def test_the_grid_and_its_edges() -> None:
    rates = grid(0.1, 1.0)
    assert rates[0] == 0.1 and rates[-1] == pytest.approx(1.0) and len(rates) == 6
    assert all(b / a == pytest.approx(10**0.2) for a, b in zip(rates, rates[1:], strict=False))
    for low, high, factor in ((0.0, 1.0, 2.0), (1.0, 0.5, 2.0), (0.1, 1.0, 1.0)):
        with pytest.raises(ValueError, match="0 < low < high"):
            grid(low, high, factor)


def test_the_best_setting_is_the_lowest_mean_and_ties_go_to_the_middle() -> None:
    scores = torch.tensor([[3.0, 3.0], [1.0, 1.1], [1.0, 1.0], [math.nan, 0.0]])
    assert best_setting(scores) == 2
    assert best_setting(torch.tensor([[1.0], [0.0], [0.0], [0.0], [1.0]])) == 2
    assert best_setting(torch.tensor([[0.02], [0.0], [0.01]]), slack=0.015) == 2
    with pytest.raises(ValueError, match="every setting failed"):
        best_setting(torch.full((2, 2), math.nan))
    with pytest.raises(ValueError, match="settings, seeds"):
        best_setting(torch.zeros(3))


def test_bad_sweeps_are_named() -> None:
    with pytest.raises(ValueError, match="at least one setting and one step, got 0 and 3"):
        sweep(MAKERS["adam"], [], torch.ones(1, 2), bowl_1, 3)
    with pytest.raises(ValueError, match="no stored sweep 'nothing'; there are: .*optimizers_on_images"):
        load_sweep("nothing")


STORED = sorted(Path(str(files("nlcore.data") / "sweeps")).glob("*.json"))


@pytest.mark.parametrize("file", STORED, ids=lambda file: file.stem)
def test_a_stored_sweep_says_how_it_was_made_and_saving_it_again_changes_no_byte(file: Path, tmp_path: Path) -> None:
    record = load_sweep(file.stem)
    assert record["command"] == f"python notebooks/sweeps/{file.stem}.py" and record.keys() & {"seeds", "worlds"}
    assert save_sweep(file.stem, record, tmp_path).read_bytes() == file.read_bytes()


def test_what_cannot_be_stored_leaves_the_old_file(tmp_path: Path) -> None:
    about = {"command": "python it.py", "torch": "2.13.0"}
    old = save_sweep("one", {**about, "seeds": [1, 2]}, tmp_path).read_text()
    for record, words in (({**about, "loss": math.inf}, "JSON"), ({"seeds": [1]}, "command, torch missing")):
        with pytest.raises(ValueError, match=words):
            save_sweep("one", record, tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["one.json"] and (tmp_path / "one.json").read_text() == old
    assert '"seeds": [ 1, 2 ]' in old
