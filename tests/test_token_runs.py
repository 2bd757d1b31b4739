"""A run that is stopped ends where it would have ended: bit for bit, however it is stopped."""

import os
import shutil
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from nlcore.hope import HopeConfig, HopeLM
from nlcore.hope.interrupts import HeldInterrupt
from nlcore.hope.runs import TokenRun, read_run
from nlcore.sequence import DeltaRule, TokenModel
from nlcore.sequence.fitting import fit_tokens
from nlcore.tasks.characters import windows
from nlcore.tasks.tokens import TokenBatch
from tests.trap import Trap

TEXT = torch.randint(12, (300,), generator=torch.Generator().manual_seed(5))
DRAW = partial(windows, TEXT, 6, 2)


class Dropping(TokenModel):
    """A model that draws from torch's global random numbers while it trains."""

    def forward(self, tokens: Tensor, state: Any = None, lengths: Any = None) -> tuple[Tensor, Any]:
        logits, state = super().forward(tokens, state, lengths)
        return torch.nn.functional.dropout(logits, 0.3, self.training), state


def small(kind: type[TokenModel] = Dropping, seed: int = 0, dim: int = 8) -> TokenModel:
    torch.manual_seed(seed)
    return kind(12, dim, [DeltaRule(dim, chunk_size=4)])


def hope() -> HopeLM:
    torch.manual_seed(0)
    return HopeLM(HopeConfig(12, dim=8, blocks=1, heads=1, chunk=4, periods=(2, 4)))


def run(path: Path | None, draw: Callable[[torch.Generator], TokenBatch] = DRAW, **settings: Any) -> TokenRun:
    return TokenRun(small(), draw, path=path, **{"lr": 0.03, "seed": 4, **settings})


def everything(one: TokenRun) -> list[Any]:
    """Return all that the next step depends on, in a form that can be compared."""
    leaves = torch.utils._pytree.tree_leaves(one.as_plain())
    return [leaf.tolist() if isinstance(leaf, Tensor) else leaf for leaf in leaves]


def trained(steps: int = 6) -> list[Any]:
    whole = run(None)
    whole.train(steps)
    return everything(whole)


def at(step: int, act: Callable[[], object]) -> Callable[[int], None]:
    return lambda now: act() if now == step else None  # type: ignore[return-value]


def press_stop(times: int = 1) -> None:
    for _ in range(times):
        os.kill(os.getpid(), signal.SIGINT)


def raised(error: BaseException) -> None:
    raise error


# ---- however it is stopped


@pytest.mark.parametrize("step", [1, 3, 6])
def test_an_interrupt_ends_the_step_saves_and_says_how_to_go_on(tmp_path: Path, step: int) -> None:
    file = tmp_path / "a.pt"
    with pytest.raises(KeyboardInterrupt, match=rf"after step {step} of 6; it is saved in .*a.pt.*call train\(6\)"):
        run(file).train(6, at(step, press_stop))
    torch.rand(3)  # whatever happens outside plays no part
    later = run(file)
    assert later.step == step == len(later.losses)
    later.train(6)
    assert everything(later) == trained() == everything(run(file))


def test_an_interrupt_leaves_a_run_in_memory_that_goes_on() -> None:
    one = run(None)
    with pytest.raises(KeyboardInterrupt, match="after step 2 of 6; nothing is lost"):
        one.train(6, at(2, press_stop))
    one.train(6)
    assert everything(one) == trained()


@pytest.mark.parametrize("how", [partial(press_stop, 2), lambda: raised(KeyboardInterrupt())])
def test_one_that_breaks_off_between_two_steps_loses_nothing(tmp_path: Path, how: Callable[[], None]) -> None:
    one = run(tmp_path / "a.pt")
    with pytest.raises(KeyboardInterrupt, match="after step 3 of 6"):
        one.train(6, at(3, how))
    assert run(tmp_path / "a.pt").step == 3
    one.train(6)
    assert everything(one) == trained()


@pytest.mark.parametrize("error", [KeyboardInterrupt(), MemoryError("no room")])
def test_one_that_breaks_off_inside_a_step_returns_to_the_last_save(tmp_path: Path, error: BaseException) -> None:
    count = iter(range(100))

    def draw(generator: torch.Generator) -> TokenBatch:
        batch = DRAW(generator)
        if next(count) == 3:
            raise error
        return batch

    one = run(tmp_path / "a.pt", draw, seconds_between_saves=0)
    with pytest.raises(type(error)):
        one.train(6)
    assert one.step == 3 and everything(one) == everything(run(tmp_path / "a.pt"))
    one.train(6)
    assert everything(one) == trained()


def test_without_a_file_a_broken_step_cannot_be_mended() -> None:
    one = run(None, lambda generator: raised(MemoryError()))  # type: ignore[arg-type, return-value]
    with pytest.raises(MemoryError):
        one.train(6)
    for again in (lambda: one.train(6), lambda: one.save("a.pt")):
        with pytest.raises(RuntimeError, match="step"):
            again()


@pytest.mark.parametrize(("seconds", "left"), [(0.0, 4), (1e6, 0)])
def test_a_machine_that_goes_off_loses_the_steps_since_the_last_save(tmp_path: Path, seconds: float, left: int) -> None:
    file, kept = tmp_path / "a.pt", tmp_path / "kept.pt"
    run(file, seconds_between_saves=seconds).train(6, at(5, partial(shutil.copy, file, kept)))
    later = run(kept)
    assert later.step == left
    later.train(6)
    assert everything(later) == trained()


def test_hope_goes_on_too_and_its_inner_rates_stay_faster(tmp_path: Path) -> None:
    def new(path: Path | None) -> TokenRun:
        return TokenRun(hope(), DRAW, lr=0.02, path=path)

    whole = new(None)
    whole.train(3)
    with pytest.raises(KeyboardInterrupt):
        new(tmp_path / "h.pt").train(3, at(1, press_stop))
    later = new(tmp_path / "h.pt")
    later.train(3)
    assert everything(later) == everything(whole)
    slow, fast = (group["lr"] for group in later.optimizer.param_groups)
    assert fast == pytest.approx(5 * slow) and slow == pytest.approx(0.02 * 0.05)


# ---- what training is


def test_it_is_the_recipe_of_fit_tokens() -> None:
    one, other = TokenRun(small(TokenModel), DRAW, lr=0.03, seed=4), small(TokenModel)
    assert one.train(5) == fit_tokens(other, DRAW, steps=5, lr=0.03, seed=4)
    for mine, theirs in zip(one.model.parameters(), other.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_the_random_numbers_of_the_caller_stay_his() -> None:
    before = torch.get_rng_state()
    one = run(None)
    torch.set_rng_state(before)
    one.train(2)
    assert torch.get_rng_state().equal(before)


def test_steps_are_counted_in_all(tmp_path: Path) -> None:
    one = run(tmp_path / "a.pt")
    assert len(one.train(3)) == 3
    before = everything(one)
    assert len(one.train(3)) == 3 and everything(one) == before  # it is there already
    rates: list[float] = []
    one.train(7, lambda step: rates.append(one.optimizer.param_groups[0]["lr"]))
    assert rates[0] == pytest.approx(0.03) and rates[-1] == pytest.approx(0.03 * 0.05)  # a new rise and fall
    with pytest.raises(ValueError, match="already taken 7 steps; expected that many or more, got 5"):
        one.train(5)
    for steps in (0, -1, 2.0, True):
        with pytest.raises(ValueError, match="number of steps in all"):
            one.train(steps)  # type: ignore[arg-type]


def test_a_stopped_run_may_be_given_another_end(tmp_path: Path) -> None:
    def stopped_and_shortened(file: Path) -> list[Any]:
        with pytest.raises(KeyboardInterrupt):
            run(file).train(90, at(2, press_stop))
        later = run(file)
        later.train(5)
        return everything(later)

    assert stopped_and_shortened(tmp_path / "a.pt") == stopped_and_shortened(tmp_path / "b.pt")


def test_a_loss_that_is_not_finite_returns_to_the_last_save(tmp_path: Path) -> None:
    one = run(tmp_path / "a.pt")
    one.train(2)
    with pytest.raises(FloatingPointError, match="at step 4: try a smaller learning rate"):
        one.train(9, at(4, lambda: one.model.head.weight.data.fill_(torch.nan)))
    assert one.step == 2 and everything(one) == everything(run(tmp_path / "a.pt"))


# ---- the file


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.pt"
    with pytest.raises(FileNotFoundError, match="there is no saved run"):
        read_run(file)
    saved = run(file)
    saved.save()
    data = file.read_bytes()
    for damaged in (data[: len(data) // 2], b"", b"not at all"):
        file.write_bytes(damaged)
        with pytest.raises(ValueError, match="damaged or of another kind"):
            run(file)
    torch.save({"weights": torch.zeros(2)}, file)
    with pytest.raises(ValueError, match="holds something else"):
        run(file)
    torch.save(read_run(saved.save(tmp_path / "b.pt")) | {"version": 99}, file)
    with pytest.raises(ValueError, match="expected 1, got 99"):
        run(file)


def test_a_run_of_another_model_or_recipe_is_refused_unless_it_begins_anew(tmp_path: Path) -> None:
    file = tmp_path / "a.pt"
    run(file).train(1)
    before = file.read_bytes()
    with pytest.raises(ValueError, match="saved run is of another model"):
        TokenRun(small(dim=16), DRAW, lr=0.03, seed=4, path=file)
    with pytest.raises(ValueError, match="another recipe: lr is 0.03 there, 0.1 here; seed is 4 there, 0 here"):
        run(file, lr=0.1, seed=0)
    anew = run(file, lr=0.1, fresh=True)
    assert anew.step == 0 and file.read_bytes() == before  # nothing is lost before training begins
    with pytest.raises(KeyboardInterrupt):
        anew.train(3, at(1, press_stop))
    assert run(file, lr=0.1).step == 1


def test_a_run_needs_a_rate_and_a_file_to_save_to(tmp_path: Path) -> None:
    for rate in (0, -0.1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=f"learning rate above 0, a finite number; got {rate}"):
            run(None, lr=rate)
    with pytest.raises(ValueError, match="this run has no file"):
        run(None).save()
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"cannot be saved to .*file.a.pt .*; try another file, in a folder of yours"):
        run(tmp_path / "file" / "a.pt").train(1)
    one = run(None)
    one.extra["words"] = {"list": [1, 2.5, "three", None], "tensor": torch.arange(3)}
    assert run(one.save(tmp_path / "deep" / "a.pt")).extra["words"]["list"] == [1, 2.5, "three", None]


def test_a_bar_can_be_hidden(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    run(None).train(2)
    assert capsys.readouterr().err == ""
    monkeypatch.delenv("NLCORE_PROGRESS")
    run(None).train(2)
    assert "training" in capsys.readouterr().err


def test_held_interrupts_come_back() -> None:
    before = signal.getsignal(signal.SIGINT)
    with HeldInterrupt() as held:
        assert not held.asked
        press_stop()
        assert held.asked
    assert signal.getsignal(signal.SIGINT) is before
    with pytest.raises(KeyboardInterrupt), HeldInterrupt():
        press_stop(2)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with HeldInterrupt() as held:
            press_stop()
            assert not held.asked  # who switched interrupts off keeps them off
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_saved_run_that_brings_code_is_refused_and_not_run(tmp_path: Path) -> None:
    torch.save({"format": Trap(tmp_path / "ran")}, tmp_path / "trap.pt")
    with pytest.raises(ValueError, match="damaged or of another kind"):
        read_run(tmp_path / "trap.pt")
    assert not (tmp_path / "ran").exists()
