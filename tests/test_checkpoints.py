"""Small checkpoints: stored whole, read without running code, refused with words."""

from pathlib import Path
from pickle import UnpicklingError

import pytest
import torch
from torch import nn

from nlcore.checkpoints import load_checkpoint, save_checkpoint, stored_checkpoints
from tests.trap import Trap


def model() -> nn.Module:
    made = nn.Sequential(nn.Linear(3, 4, dtype=torch.float64), nn.BatchNorm1d(4, dtype=torch.float64))
    nn.init.uniform_(made[0].weight, generator=torch.Generator().manual_seed(0))
    return made


@pytest.mark.parametrize(("kept", "error"), [(torch.float16, 1e-3), (torch.float32, 1e-7)])
def test_the_weights_come_back_as_exactly_as_they_were_kept(tmp_path: Path, kept: torch.dtype, error: float) -> None:
    made = model()
    file = save_checkpoint("a_model", made, kept, tmp_path)
    assert file == tmp_path / "a_model.pt" and stored_checkpoints(tmp_path) == ["a_model"]
    found = load_checkpoint("a_model", torch.float64, tmp_path)
    assert found.keys() == made.state_dict().keys()
    for key, value in made.state_dict().items():
        assert found[key].dtype == value.dtype
        torch.testing.assert_close(found[key], value, rtol=error, atol=error)
    model().load_state_dict(found)
    assert load_checkpoint("a_model", folder=tmp_path)["0.weight"].dtype == torch.float32


def test_the_file_holds_weights_alone(tmp_path: Path) -> None:
    save_checkpoint("small", model(), torch.float16, tmp_path)
    held = torch.load(tmp_path / "small.pt", weights_only=True)
    assert held["0.weight"].dtype == torch.float16 and held["1.num_batches_tracked"].dtype == torch.int64
    part = nn.Linear(1000, 2)
    part.weight.data = part.weight.data[:, :3]  # a view: what it looks at is not stored with it
    assert save_checkpoint("view", part, torch.float32, tmp_path).stat().st_size < 4000


def test_an_old_file_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    save_checkpoint("one", model(), folder=tmp_path)
    broken = model()
    broken[0].weight.data[0, 0] = 1e6  # type: ignore[index, union-attr]
    with pytest.raises(ValueError, match=r"0.weight is not finite in torch.float16"):
        save_checkpoint("one", broken, folder=tmp_path)
    assert load_checkpoint("one", folder=tmp_path)["0.weight"].max() <= 1
    assert [file.name for file in tmp_path.iterdir()] == ["one.pt"]


@pytest.mark.parametrize("name", ["", "Big", "a b", "../up", "a__b", "a.pt"])
def test_names_are_plain_words(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="lower-case words joined by underscores"):
        save_checkpoint(name, model(), folder=tmp_path)


def test_another_name_is_refused_with_those_there_are(tmp_path: Path) -> None:
    assert stored_checkpoints(tmp_path / "nowhere") == []
    save_checkpoint("one", model(), folder=tmp_path)
    save_checkpoint("two", model(), folder=tmp_path)
    with pytest.raises(ValueError, match="no stored checkpoint 'three'; there are: one, two"):
        load_checkpoint("three", folder=tmp_path)


def test_a_file_that_brings_code_is_refused_and_not_run(tmp_path: Path) -> None:
    torch.save({"0.weight": Trap(tmp_path / "ran")}, tmp_path / "a_trap.pt")
    with pytest.raises(UnpicklingError, match="weights_only"):
        load_checkpoint("a_trap", folder=tmp_path)
    assert not (tmp_path / "ran").exists()
