"""What a run on a text keeps in mind: its settings, what it noted while it read, and which text it was."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from nlcore.hope.config import HopeConfig
from nlcore.hope.evaluation import by_stretch
from nlcore.hope.runs import check_same
from nlcore.optimizers.checks import check_choice
from nlcore.tasks.texts import Text, open_text, split_text

PRESETS = ("tiny", "small")


@dataclass(frozen=True)
class TextSettings:
    """What a run is made with: the `config` of its HOPE model, None for another model; its `vocabulary`, "bytes" or
    "characters"; windows of `length` tokens, `batch_size` a step; `lr`; `seed`; the `test_part` kept for measuring.
    """

    config: dict[str, Any] | None
    vocabulary: str
    length: int
    batch_size: int
    lr: float
    seed: int
    test_part: float


@dataclass(frozen=True)
class TextReading:
    """What a run noted while it read: `bits` (N,) of each predicted token, `begins` (N,) where a character begins."""

    name: str
    bits: Tensor
    begins: Tensor

    @property
    def bits_per_character(self) -> float:
        """The mean over the whole text."""
        return float(self.bits.sum() / self.begins.sum())

    def curve(self, stretch: int = 1000) -> Tensor:
        """Return bits per character of each stretch of so many tokens: does it predict better as it goes on?"""
        return by_stretch(self.bits, stretch, self.begins)

    def __repr__(self) -> str:
        curve, size = self.curve(), int(self.begins.sum())
        return (
            f"read {size:,} characters of {self.name}: {self.bits_per_character:.2f} bits per character, "
            f"{curve[0]:.2f} at the beginning, {curve[-1]:.2f} at the end"
        )


def fingerprint(text: str) -> dict[str, Any]:
    """Return what tells a text from a changed one: its number of characters and a hash."""
    return {"characters": len(text), "sha256": hashlib.sha256(text.encode("utf-8")).hexdigest()}


def check_settings(saved: dict[str, Any], wanted: dict[str, Any], file: Path) -> None:
    """Raise ValueError, which names every difference, unless a saved run has the settings that are wanted now.

    Args     saved, wanted: the `extra` of both. file: where the run was saved.
    """
    if "settings" not in saved:
        raise ValueError(f"expected a saved run on a text, got {file}, the run of something else; try checkpoint=...")
    check_same("setting", _flat(saved["settings"]), _flat(wanted["settings"]))


def check_text(saved: dict[str, Any], text: str, file: Path) -> None:
    """Raise ValueError unless a saved run was trained on this very text.

    Args     saved: its `extra`. text: all of it. file: where the run was saved.
    """
    before, now = saved["text"], fingerprint(text)
    if before["sha256"] != now["sha256"]:
        raise ValueError(
            f"the text has changed since {file} was saved: {before['characters']:,} characters then, "
            f"{now['characters']:,} now; bring the old text back, give checkpoint=... another name, or begin anew "
            "with fresh=True"
        )


def check_long_enough(text: Text, tokens: int, length: int) -> None:
    """Raise ValueError unless a window fits into the part of a text that is for training.

    Args     text: in its two parts. tokens: of the part for training. length: of a window.
    """
    if tokens <= length:
        kept = f", the last {len(text.test):,} characters kept for measuring" if text.test else ""
        longer = f" or length={tokens // 2}" if tokens >= 32 else ""
        raise ValueError(
            f"{text.title} is too short: windows of length={length} need a text of at least {length + 1} tokens to "
            f"train on, got {tokens}{kept}; try a longer text{longer}"
        )


def same_text(place: str | Path, extra: dict[str, Any], file: Path, asked: bool) -> Text | None:
    """Return the text that a saved run was trained on, or None if it was not asked for and is not there any more.

    Args     place: where to look. extra: of the saved run. file: where the run was saved. asked: whether its absence is
             an error.
    Raises   as `open_text`, or ValueError for another text, if it was asked for.
    """
    try:
        path = Path(place).expanduser()
        whole = open_text(path, extra["text"]["encoding"])
        check_text(extra, whole, file)
    except (OSError, ValueError):
        if asked:
            raise
        return None
    return split_text(path.name, str(path), whole, extra["settings"]["test_part"])


def config_of(preset: str | HopeConfig, vocabulary: int) -> HopeConfig:
    """Return the settings of the HOPE model of this size, for so many tokens.

    Args     preset: "tiny", "small", or a HopeConfig. vocabulary: how many tokens.
    Raises   ValueError for another name.
    """
    if isinstance(preset, HopeConfig):
        return preset.with_(vocabulary=vocabulary)
    check_choice("preset", preset, PRESETS)
    return HopeConfig.tiny(vocabulary) if preset == "tiny" else HopeConfig.small(vocabulary)


def _flat(settings: dict[str, Any]) -> dict[str, Any]:
    """Return settings with those of the model among them; its number of tokens follows from the vocabulary."""
    model = settings["config"]
    flat = {"model": "own" if model is None else "HOPE"} | (model or {}) | settings
    return {name: value for name, value in flat.items() if name != "config"}
