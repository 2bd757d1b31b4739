"""Your own text: train a language model on it, let it write, let it go on learning while it reads, save and load it.

    run = TextRun("my_book.txt", preset="tiny")   # goes on from my_book.nlcore.pt if there is one
    run.train(steps=500)
    print(run.write("Once upon a time", 200))
    print(run.read("more.txt"))                   # learns while it reads: its memory moves, its weights do not
    run.save()

An interrupted training is saved; the same lines, run again, end at the same weights as if nothing had happened.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nlcore.hope import records
from nlcore.hope.config import HopeConfig
from nlcore.hope.evaluation import read_stream
from nlcore.hope.generate import stream
from nlcore.hope.model import HopeLM
from nlcore.hope.records import TextReading, TextSettings
from nlcore.hope.runs import TokenRun, read_run
from nlcore.hope.writing import encode_prompt, write_text
from nlcore.optimizers.checks import check_choice, check_count
from nlcore.sequence.model import TokenModel
from nlcore.sequence.saving import as_plain, from_plain, move
from nlcore.tasks.characters import Bytes, Characters, Vocabulary, bits_per_character, vocabulary_from, windows
from nlcore.tasks.texts import TEST_PART, Text, open_text, split_text
from nlcore.tasks.tokens import TokenBatch

MakeModel = Callable[[int], TokenModel]
SUFFIX = ".nlcore.pt"


class TextRun:
    """A language model and the text it is trained on.

    Args     text: a file of plain text. preset: size of the HOPE model, "tiny" or "small", or a HopeConfig. model:
             makes any other `TokenModel` from the number of tokens. vocabulary: "bytes", any text in any language, or
             "characters", those of this text. length: tokens in a window. batch_size: windows a step. lr: the highest
             learning rate. seed: of the weights and the windows. test_part: how much of the end is kept for measuring.
             device: "cpu", "cuda"; None takes a GPU if there is one. checkpoint: the file of the run; None is the
             text's name with .nlcore.pt. encoding: of the text. fresh: begin anew, even if there is a checkpoint.
    Raises   FileNotFoundError or ValueError if the text is missing, empty, binary or too short; ValueError if the
             checkpoint belongs to another text or to other settings.
    """

    def __init__(
        self,
        text: str | Path,
        preset: str | HopeConfig = "tiny",
        *,
        model: MakeModel | None = None,
        vocabulary: str = "bytes",
        length: int = 256,
        batch_size: int = 8,
        lr: float = 5e-3,
        seed: int = 0,
        test_part: float = TEST_PART,
        device: torch.device | str | None = None,
        checkpoint: str | Path | None = None,
        encoding: str = "utf-8",
        fresh: bool = False,
    ) -> None:
        check_choice("vocabulary", vocabulary, ("bytes", "characters"))
        check_count("length", length)
        check_count("batch_size", batch_size)
        path = Path(text).expanduser()
        whole = open_text(path, encoding)
        words: Vocabulary = Bytes() if vocabulary == "bytes" else Characters(whole)
        made = None if model is not None else asdict(records.config_of(preset, words.size))
        settings = TextSettings(made, vocabulary, length, batch_size, lr, seed, test_part)
        file = path.with_suffix(SUFFIX) if checkpoint is None else Path(checkpoint)
        if file.resolve() == path.resolve():
            raise ValueError(f"the run would be written over its text {path}: give checkpoint=... another name")
        extra = {
            "settings": asdict(settings),
            "vocabulary": words.as_plain(),
            "text": {"path": str(path), "encoding": encoding, "tokens": len(words.encode(whole))}
            | records.fingerprint(whole),
            "stream": None,
            "last": None,
        }
        if file.exists() and not fresh:
            saved = read_run(file)["extra"]
            records.check_settings(saved, extra, file)
            records.check_text(saved, whole, file)
        self._set_up(settings, extra, split_text(path.name, str(path), whole, test_part), model, device, file, fresh)

    @classmethod
    def load(
        cls,
        file: str | Path,
        *,
        text: str | Path | None = None,
        model: MakeModel | None = None,
        device: torch.device | str | None = None,
    ) -> TextRun:
        """Return the run that was saved in a file; its text is needed only to train it further.

        Args     file: written by `save` or while training. text: where the text is now, if it has moved. model: as it
                 was given when the run began. device: "cpu", "cuda"; None takes a GPU if there is one.
        Raises   FileNotFoundError if there is none; ValueError if it is damaged, or not the file of such a run.
        """
        extra = read_run(file)["extra"]
        if "settings" not in extra:
            raise ValueError(f"expected a saved TextRun, got {file}, the run of something else; try read_run")
        settings, source = TextSettings(**extra["settings"]), extra["text"]
        if (model is None) == (settings.config is None):
            found_there = "a model of its own: give it" if model is None else "a HOPE model: leave out"
            raise ValueError(f"the run in {file} has {found_there} model=...")
        found = records.same_text(source["path"] if text is None else text, extra, Path(file), text is not None)
        run = cls.__new__(cls)
        run._set_up(settings, extra, found, model, device, Path(file), False)
        return run

    def _set_up(
        self,
        settings: TextSettings,
        extra: dict[str, Any],
        text: Text | None,
        model: MakeModel | None,
        device: torch.device | str | None,
        file: Path,
        fresh: bool,
    ) -> None:
        self.settings, self.text, self.vocabulary = settings, text, vocabulary_from(extra["vocabulary"])
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self._tokens = None if text is None else self.vocabulary.encode(text.train).to(self.device)
        if self._tokens is not None and text is not None:
            records.check_long_enough(text, len(self._tokens), settings.length)
        with torch.random.fork_rng([]):
            torch.random.default_generator.manual_seed(settings.seed)  # the weights begin on the CPU: the same anywhere
            made = _hope(settings) if model is None else model(self.vocabulary.size)
            self.model = made.to(self.device)
        self.training = TokenRun(self.model, self._draw, lr=settings.lr, seed=settings.seed, path=file, fresh=fresh)
        self.training.extra = extra | self.training.extra

    def train(self, steps: int) -> TextRun:
        """Train until the run has taken so many steps in all; see `TokenRun.train` for what an interrupt does.

        What was read before is forgotten, as it was read with other weights.

        Args     steps: in all, also over several sessions.
        Returns  the run itself, which prints how far it is.
        Raises   ValueError if it has taken more already, or its text is missing; FloatingPointError if it diverges.
        """
        self._to_train_on()
        if steps > self.training.step:
            self.forget()
        self.training.train(steps)
        return self

    def write(self, prompt: str = "\n", characters: int = 200, *, temperature: float = 0.8, seed: int = 0) -> str:
        """Return the prompt and so many characters that the model writes after it.

        It writes after all that was read before with `read`, and forgets what it wrote.

        Args     prompt: how the text begins; an empty one stands for a line end. characters: to write. temperature:
                 less is more careful, 0 always takes the most likely. seed: another one writes another text.
        Raises   ValueError for a prompt with characters that the vocabulary lacks.
        """
        check_count("characters", characters)
        tokens, state = self._after_what_was_read(encode_prompt(prompt, self.vocabulary))
        generator = torch.Generator(self.device).manual_seed(seed)
        self.model.eval()
        drawn = stream(self.model, tokens[None], temperature=temperature, state=state, generator=generator)
        return prompt + write_text((int(token) for token, _ in drawn), self.vocabulary, characters)

    def read(self, file: str | Path, encoding: str = "utf-8") -> TextReading:
        """Read a file from beginning to end, once, and go on learning: the memory moves, the weights do not.

        Args     file: plain text. encoding: of the file.
        Returns  how well each token was predicted before it was learned.
        Raises   as `open_text`.
        """
        return self.read_text(open_text(file, encoding), Path(file).name)

    def read_text(self, text: str, name: str = "a text") -> TextReading:
        """Read a text as `read` does.

        Args     text: of at least two tokens. name: for the report.
        """
        tokens, state = self._after_what_was_read(self.vocabulary.encode(text))
        bits, state = read_stream(self.model, tokens, piece=self.settings.length, state=state)
        self.training.extra |= {"stream": as_plain(state), "last": int(tokens[-1])}
        return TextReading(name, bits.cpu(), self.vocabulary.begins(tokens[1:]).cpu())

    def held_out(self) -> TextReading:
        """Read the part of the text that was kept for measuring, from an empty memory; nothing is kept of it.

        Raises   ValueError if the run has no text, or none was kept.
        """
        if self.text is None or len(self.text.test) < 2:
            raise ValueError(f"no text was kept for measuring: it is missing, or test_part={self.settings.test_part}")
        tokens = self.vocabulary.encode(self.text.test).to(self.device)
        bits, _ = read_stream(self.model, tokens, piece=self.settings.length)
        return TextReading(f"the end of {self.text.name}", bits.cpu(), self.vocabulary.begins(tokens[1:]).cpu())

    def forget(self) -> None:
        """Forget what was read; the weights stay."""
        self.training.extra |= {"stream": None, "last": None}

    def save(self, file: str | Path | None = None) -> Path:
        """Write the run, with what it read, to its own file or to another one, and return that file."""
        return self.training.save(file)

    @property
    def losses(self) -> list[float]:
        """Bits per character of the batch of each step."""
        text = self.training.extra["text"]
        return [bits_per_character(nats, text["tokens"] / text["characters"]) for nats in self.training.losses]

    def __repr__(self) -> str:
        run, name = self.training, Path(self.training.extra["text"]["path"]).name
        last = self.losses[-50:]
        now = f", {sum(last) / len(last):.2f} bits per character in the last {len(last)}" if last else ""
        return f"TextRun on {name}: {run.step} of {max(run.end, run.step)} steps{now}"

    def _draw(self, generator: torch.Generator) -> TokenBatch:
        return windows(self._to_train_on(), self.settings.length, self.settings.batch_size, generator)

    def _to_train_on(self) -> Tensor:
        if self._tokens is None:
            path = self.training.extra["text"]["path"]
            raise ValueError(
                f"to train further, the run needs its text: {path} is missing or changed; try load(..., text=...)"
            )
        return self._tokens

    def _after_what_was_read(self, tokens: Tensor) -> tuple[Tensor, Any]:
        """Return the tokens behind the one that is still to be read, and the state before it."""
        last, state = self.training.extra["last"], from_plain(self.training.extra["stream"])
        if last is not None:
            tokens = torch.cat([tokens.new_tensor([last]), tokens])
        return tokens.to(self.device), move(state, self.device)


def _hope(settings: TextSettings) -> HopeLM:
    return HopeLM(HopeConfig(**(settings.config or {})))
