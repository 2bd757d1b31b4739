"""What the contest of HOPE and the Transformer reports of a trained model.

    positions   bits per character by how much was read before, within the trained length and beyond it
    reading     a long walk through an era that nobody was trained on, and back: bits per stretch of 2000 characters
    nats        the loss along a stream A | B | A, as trained and with some levels held
    accuracy    of passkey and parity, by length

A Transformer reads beyond its trained length in two ways: its cache carried on, or `bounded`, 192 tokens read anew
before every piece of 64, which is its strong form. Dynamic evaluation lets it learn as well: all its weights.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from nlcore.hope.contest import CHANGES, TESTED_ON, TRAINED_ERAS, TUNING_ERA, text
from nlcore.hope.contest import READ_ERA as ERA
from nlcore.hope.evaluation import bits_by_position, by_stretch, read_stream, tuned_dynamic_evaluation
from nlcore.sequence.counting import counts_right
from nlcore.sequence.fitting import nats_by_position, token_accuracy
from nlcore.sequence.model import TokenModel
from nlcore.tasks import passkey, switching

BINS = ((0, 16), (16, 64), (64, 256), (256, 512), (512, 1024))  # positions
BOUNDED = {"piece": 64, "context": 192}
AWAY, BACK, STRETCH, TUNING = 24_000, 4_000, 2_000, 8_000  # characters
RATES = tuple(0.02 * 2**k for k in range(6))  # of dynamic evaluation
HELD: dict[str, tuple[str, ...]] = {
    "as trained": (),
    "all held": ("all",),
    "only Titans": ("cms",),
    "only the CMS": ("titans",),
    "cms 1 held": ("cms 1",),
    "cms 2 held": ("cms 2",),
}
PARITY, PASSKEY = (20, 40, 80, 160), (128, 256, 512, 1024, 2048)


def measure(task: str, name: str, model: TokenModel) -> dict[str, Any]:
    """Return what is reported of a trained model, rounded numbers and lists of them.

    Args     task, name: as in `nlcore.hope.contest.untrained`. model: as it was trained.
    """
    if task == "parity":
        return {"accuracy": {str(T): _round(counts_right(model, T)) for T in PARITY}}
    if task == "passkey":
        draws = {T: passkey.passkey(64, torch.Generator().manual_seed(TESTED_ON), lengths=(T,)) for T in PASSKEY}
        return {"accuracy": {str(T): _round(token_accuracy(model, batch, 16)) for T, batch in draws.items()}}
    if task == "stream":
        return {"nats": along_the_stream(model, HELD if name in CHANGES else {"as trained": ()})}
    reading = {way: stretches(bits) for way, bits in journeys(name, model).items()}
    return {"positions": by_position(name, model), "fresh": fresh(name, model), "reading": reading}


def along_the_stream(model: TokenModel, held: dict[str, tuple[str, ...]]) -> dict[str, list[float]]:
    """Return the loss at each position of streams A | B | A, in nats: as trained, and with levels held."""
    batch = switching.switching(128, torch.Generator().manual_seed(TESTED_ON))
    found = {}
    for words, names in held.items():
        reader: Any = partial(model, frozen=names) if names else model
        found[words] = nats_by_position(_Reader(reader), batch)
    return {words: [_round(number, 3) for number in nats.tolist()] for words, nats in found.items()}


class _Reader(torch.nn.Module):
    """A model with settings of its call."""

    def __init__(self, read: Callable[..., Any]) -> None:
        super().__init__()
        self.read = read

    def forward(self, tokens: Tensor, state: Any = None, lengths: Tensor | None = None) -> Any:
        return self.read(tokens, state, lengths)


def by_position(name: str, model: TokenModel) -> dict[str, list[float]]:
    """Return bits per character in each of `BINS`, on the kept ends of the trained eras, with the state carried on.

    Of a Transformer also `bounded`.
    """
    longest, test = BINS[-1][1], [text(era, "test") for era in TRAINED_ERAS]
    found = {"carried": torch.stack([bits_by_position(model, tokens, longest) for tokens in test]).mean(0)}
    if name not in CHANGES:
        rows = [row for tokens in test for row in tokens.unfold(0, longest + 1, longest)]
        found["bounded"] = torch.stack([read_stream(model, row, **BOUNDED).bits for row in rows]).mean(0)
    return {way: [_round(bits[first:last].mean()) for first, last in BINS] for way, bits in found.items()}


def journeys(name: str, model: TokenModel) -> dict[str, Tensor]:
    """Return the bits of each character on the way through the new era and back, by the way of reading.

    HOPE carries its state on: as trained, and with the CMS held. A Transformer reads `bounded`; in `dynamic` it learns
    too, at the rate that is best on a third era.
    """
    way = torch.cat([text(ERA)[: AWAY + 1], text(TRAINED_ERAS[1], "test")[:BACK]])
    if name in CHANGES:
        read = {"learning": read_stream(model, way).bits}
        return read | ({"cms held": read_stream(model, way, frozen=("cms",)).bits} if name == "hope" else {})
    best = tuned_dynamic_evaluation(model, text(TUNING_ERA)[:TUNING], way, RATES, **BOUNDED)
    return {"bounded": read_stream(model, way, **BOUNDED).bits, "dynamic": best.bits}


def fresh(name: str, model: TokenModel) -> list[float]:
    """Return the price of the way back for who has not been away, by stretch."""
    tokens = text(TRAINED_ERAS[1], "test")[: BACK + 1]
    return stretches(read_stream(model, tokens, **({} if name in CHANGES else BOUNDED)).bits)


def stretches(bits: Tensor) -> list[float]:
    """Return the mean of each stretch of 2000 characters."""
    return [_round(number) for number in by_stretch(bits, STRETCH)]


def _round(number: Tensor | float, digits: int = 4) -> float:
    return round(float(number), digits)
