"""A learner's own text, from the file to a model that writes, reads on, and comes back from its file."""

import math
import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from nlcore.hope import HopeConfig, HopeLM
from nlcore.hope.runs import TokenRun
from nlcore.hope.text import TextRun
from nlcore.hope.writing import write_text
from nlcore.sequence import DeltaRule, TokenModel
from nlcore.tasks.characters import Bytes, Characters

BOOK = "Once upon a time there was a small model. It read, and it learned. " * 12
MORE = "It read more: καλημέρα, and it went on. " * 3
TINY = HopeConfig(1, dim=8, blocks=1, heads=1, chunk=8, periods=(4, 16))
SMALL: dict[str, Any] = {"length": 24, "batch_size": 2, "device": "cpu"}


def own_model(vocabulary: int) -> TokenModel:
    return TokenModel(vocabulary, 8, [DeltaRule(8, chunk_size=8)])


@pytest.fixture
def book(tmp_path: Path) -> Path:
    (tmp_path / "more.txt").write_text(MORE, encoding="utf-8")
    (tmp_path / "my_book.txt").write_text(BOOK, encoding="utf-8")
    return tmp_path / "my_book.txt"


def begin(book: Path, preset: Any = TINY, **settings: Any) -> TextRun:
    return TextRun(book, preset, **SMALL | settings)


def same_weights(one: TextRun, other: TextRun) -> bool:
    pairs = zip(one.model.state_dict().values(), other.model.state_dict().values(), strict=True)
    return all(torch.equal(mine, theirs) for mine, theirs in pairs)


# ---- the five lines


def test_the_five_lines(book: Path) -> None:
    run = begin(book)
    assert isinstance(run.model, HopeLM) and run.model.vocabulary == 256 and run.model.config.dim == 8
    assert repr(run.train(steps=3)).startswith("TextRun on my_book.txt: 3 of 3 steps, ")
    text = run.write("Once upon", 20)
    assert text.startswith("Once upon") and len(text) == 29
    reading = run.read(book.parent / "more.txt")
    assert reading.begins.sum() == len(MORE) - 1 and len(reading.bits) == len(MORE.encode()) - 1
    assert reading.bits_per_character == pytest.approx(float(reading.bits.sum()) / (len(MORE) - 1))
    assert f"read {len(MORE) - 1} characters of more.txt: " in repr(reading)
    assert len(reading.curve(50)) == math.ceil(len(reading.bits) / 50)
    assert run.save() == book.parent / "my_book.nlcore.pt"
    again = TextRun.load(run.save(), device="cpu")
    assert same_weights(run, again) and again.write("It", 15) == run.write("It", 15)
    assert begin(book).write("It", 15) == run.write("It", 15)  # the same line finds the file again


def test_the_five_lines_of_the_readme(book: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As they are printed, but for the number of steps."""
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    (block,) = (part for part in re.findall(r"```python\n(.*?)```", readme, re.DOTALL) if "TextRun" in part)
    lines = [line for line in block.splitlines() if line and "import" not in line]
    assert len(lines) == 5
    monkeypatch.chdir(book.parent)
    monkeypatch.setenv("NLCORE_PROGRESS", "0")
    book.write_text(BOOK * (1 + 3000 // len(BOOK)), encoding="utf-8")
    exec(block.replace("steps=500", "steps=2"), {})  # the text of our own README
    assert (book.parent / "my_book.nlcore.pt").is_file()


def test_an_interrupt_and_the_same_lines_again_end_at_the_same_weights(book: Path) -> None:
    whole = begin(book, checkpoint=book.parent / "whole.pt").train(4)
    run = begin(book)

    def stop(step: int) -> None:
        if step == 2:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt, match=r"after step 2 of 4; it is saved in .*my_book.nlcore.pt"):
        run.training.train(4, on_step=stop)
    torch.rand(5)
    later = begin(book)
    assert "2 of 4 steps" in repr(later)
    assert same_weights(later.train(4), whole) and later.losses == whole.losses
    loaded = TextRun.load(later.save(book.parent / "copy.pt"), device="cpu")
    assert same_weights(loaded.train(6), whole.train(6))


def test_the_seed_alone_decides(book: Path) -> None:
    runs = []
    for number, seed in enumerate((1, 1, 2)):
        torch.rand(3)  # the random numbers outside play no part
        runs.append(begin(book, checkpoint=book.parent / f"{number}.pt", seed=seed).train(2))
    assert same_weights(runs[0], runs[1]) and not same_weights(runs[0], runs[2])


def test_a_compiled_model_is_trained_and_saved_and_goes_on(book: Path) -> None:
    torch.compiler.reset()
    losses = []
    for name in ("plain.pt", "fast.pt"):
        run = begin(book, checkpoint=book.parent / name)
        if name == "fast.pt":
            run.model.compile(backend="eager")
        run.train(2)
        losses.append(begin(book, checkpoint=book.parent / name).train(4).losses)
    assert len(losses[0]) == 4 and losses[1] == pytest.approx(losses[0], rel=1e-5)


def test_a_text_in_one_line_needs_a_prompt(book: Path) -> None:
    run = begin(book, vocabulary="characters").train(1)
    assert len(run.write("Once", 8)) == len("Once") + 8
    for prompt in ("", "\n"):
        with pytest.raises(ValueError, match="no line end to begin with: give a prompt"):
            run.write(prompt, 8)


def test_losses_are_bits_per_character(book: Path) -> None:
    greek = book.parent / "greek.txt"
    greek.write_text("καλημέρα" * 40, encoding="utf-8")
    run = begin(greek).train(1)
    assert run.losses[0] == pytest.approx(run.training.losses[0] / math.log(2) * 2)  # two bytes a letter
    words = begin(greek, vocabulary="characters", checkpoint=book.parent / "c.pt").train(1)
    assert words.losses[0] == pytest.approx(words.training.losses[0] / math.log(2)) and words.vocabulary.size == 7


# ---- reading on


def test_what_is_read_is_remembered_until_it_is_forgotten_or_the_weights_change(book: Path) -> None:
    run = begin(book).train(2)
    fresh = run.write("It", 12, temperature=0.0)
    one, two = run.read_text(MORE[:60]), run.read_text(MORE[60:])
    run.forget()
    both = run.read_text(MORE)
    torch.testing.assert_close(torch.cat([one.bits, two.bits]), both.bits, rtol=0, atol=1e-4)
    first = run.write("It", 12)
    assert run.write("It", 12) == first  # writing is forgotten
    before = begin(book)
    assert before.training.extra["stream"] is None  # saved before it was read
    run.save()
    assert begin(book).write("It", 12) == first
    run.train(2)
    assert run.write("It", 12) == first  # nothing was trained
    run.train(3)
    assert run.training.extra["stream"] is None and run.training.extra["last"] is None
    before.forget()
    assert before.write("It", 12, temperature=0.0) == fresh


def test_the_end_of_the_text_is_kept_for_measuring(book: Path) -> None:
    run = begin(book, test_part=0.25)
    held = run.held_out()
    assert run.text is not None and held.begins.sum() == len(BOOK) // 4 - 1 and len(run.text.train) == len(BOOK) * 3 / 4
    assert 7 < held.bits_per_character < 9.5 and "the end of my_book.txt" in repr(held)
    assert run.training.extra["stream"] is None
    nothing = begin(book, test_part=0.0, checkpoint=book.parent / "b.pt")
    with pytest.raises(ValueError, match="no text was kept for measuring"):
        nothing.held_out()


def test_a_model_of_ones_own(book: Path) -> None:
    run = TextRun(book, model=own_model, **SMALL).train(2)
    run.read_text("It read.")
    file = run.save()
    assert TextRun.load(file, model=own_model, device="cpu").write("a", 9) == run.write("a", 9)
    with pytest.raises(ValueError, match="has a model of its own: give it model="):
        TextRun.load(file)
    with pytest.raises(ValueError, match="another setting: model is 'own' there, 'HOPE' here"):
        begin(book)


# ---- what does not fit


def test_a_text_that_is_too_short_is_named_with_what_would_fit(book: Path) -> None:
    book.write_text("x" * 100)
    with pytest.raises(ValueError, match=r"at least 257 tokens to train on, got 90, the last 10 .* or length=45"):
        TextRun(book, TINY)
    book.write_text("short")
    with pytest.raises(ValueError, match="too short: .*try a longer text$"):
        begin(book)
    with pytest.raises(FileNotFoundError, match="text files in .*: my_book.txt, more.txt"):
        TextRun(book.parent / "my_bok.txt")


def test_a_checkpoint_of_another_text_or_other_settings_is_not_overwritten(book: Path) -> None:
    begin(book).train(1)
    with pytest.raises(ValueError, match="another setting: dim is 8 there, 16 here; lr is 0.005 there, 0.01 here;"):
        begin(book, TINY.with_(dim=16), lr=0.01)
    book.write_text(BOOK + "!")
    with pytest.raises(ValueError, match=r"text has changed since .*: 804 characters then, 805 now; .*fresh=True"):
        begin(book)
    with pytest.raises(ValueError, match="would be written over its text"):
        begin(book, checkpoint=book, fresh=True)
    assert begin(book, fresh=True).train(1).training.step == 1 and begin(book).training.step == 1


def test_without_its_text_a_run_writes_and_reads_but_does_not_train(book: Path) -> None:
    file = begin(book).train(1).save()
    moved = book.rename(book.parent / "moved.txt")
    run = TextRun.load(file, device="cpu")
    assert run.read_text(MORE).bits.isfinite().all() and run.write("a", 5)
    with pytest.raises(ValueError, match=r"needs its text: .*my_book.txt is missing or changed; try load"):
        run.train(2)
    assert TextRun.load(file, text=moved, device="cpu").train(2).training.step == 2
    moved.write_text("another text")
    with pytest.raises(ValueError, match="the text has changed"):
        TextRun.load(file, text=moved)
    book.write_text("another text")
    assert TextRun.load(file, device="cpu").text is None


def test_other_arguments_that_do_not_fit_are_named(book: Path) -> None:
    with pytest.raises(ValueError, match="preset must be one of 'tiny', 'small'; got 'huge'"):
        begin(book, "huge")
    with pytest.raises(ValueError, match="vocabulary must be one of 'bytes', 'characters'"):
        begin(book, vocabulary="words")
    for name in ("length", "batch_size"):
        with pytest.raises(ValueError, match=f"{name} must be at least 1"):
            begin(book, **{name: 0})
    run = begin(book)
    with pytest.raises(ValueError, match="characters must be at least 1"):
        run.write("a", 0)
    with pytest.raises(ValueError, match="temperature must be"):
        run.write("a", 5, temperature=-1.0)
    other = TokenRun(own_model(4), lambda generator: None, lr=0.1).save(book.parent / "other.pt")  # type: ignore[arg-type, return-value]
    with pytest.raises(ValueError, match="expected a saved TextRun"):
        TextRun.load(other)
    with pytest.raises(ValueError, match="expected a saved run on a text"):
        begin(book, checkpoint=other)


def test_presets_have_the_size_of_the_library(book: Path) -> None:
    run = begin(book, "tiny")
    assert isinstance(run.model, HopeLM) and run.model.config == HopeConfig.tiny(256)


# ---- drawn tokens as text


def test_whole_characters_are_written() -> None:
    letters = Bytes().encode("aé日🙂b").tolist() * 9
    for size in range(1, 12):
        assert write_text(iter(letters), Bytes(), size) == ("aé日🙂b" * 9)[:size]
    assert write_text(iter([0x80] * 99), Bytes(), 3) == "\ufffd" * 3  # no text: it ends all the same
    assert write_text(iter([0, 1, 0]), Characters("xy"), 2) == "xy"
