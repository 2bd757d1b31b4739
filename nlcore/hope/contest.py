"""The contest of HOPE and the Transformer: who takes part, on what, and how they are trained.

Both have the same embedding, the same number of blocks, feed-forward parts of the same width, a tied head, the same
batches and the same recipe. Each family tunes its learning rate on the same grid, with a tuning seed, by the loss on
sequences that no reported result sees. Transformers may also train as long as HOPE needs (`SAME_TIME`).

    language   the next character of Shakespeare and Austen, windows of 256
    stream     a rule that is drawn anew for each stream and changes once (`nlcore.tasks.switching`)
    passkey    four needles in up to 128 tokens
    parity     words of 3 to 20 bits (`nlcore.sequence.counting`)

Source    the experiments are ours; the article's comparison, and Nested Learning, Tables 1, 2, 5 and 6, are its models.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from nlcore.checkpoints import load_checkpoint
from nlcore.hope.config import HopeConfig
from nlcore.hope.model import HopeLM, TransformerLM
from nlcore.sequence.counting import words
from nlcore.sequence.fitting import Draw, fit_tokens, token_loss
from nlcore.sequence.layers.memories import SoftmaxAttention
from nlcore.sequence.model import TokenModel
from nlcore.tasks import passkey, switching
from nlcore.tasks.characters import Characters, windows
from nlcore.tasks.eras import ERAS, era
from nlcore.tasks.tokens import TokenBatch

TUNING_SEED, TUNED_ON, TESTED_ON = 1000, 2000, 3000  # training; sequences that choose the rate; reported sequences
TRAINED_ERAS, READ_ERA, TUNING_ERA = ("shakespeare", "austen"), "obama", "lincoln"
LENGTH, ROWS = 256, 8  # of the windows of text; windows a step
SAME_TIME = {"transformer_same_time": "transformer", "transformer_conv_same_time": "transformer_conv"}
LONGER = {"hope_longer": "transformer_same_time"}  # takes as many steps as that one


@cache
def characters() -> Characters:
    """Return the vocabulary of all eras together."""
    return Characters("".join(era(name).whole for name in ERAS))


@cache
def text(name: str, part: str = "train") -> Tensor:
    """Return the characters of an era as tokens, (N,); part: "train" or "test", the end that nobody trains on."""
    return characters().encode(getattr(era(name), part))


def window(generator: torch.Generator) -> TokenBatch:
    """Return windows of the two eras that are trained on."""
    return windows(torch.cat([text(name) for name in TRAINED_ERAS]), LENGTH, ROWS, generator)


@dataclass(frozen=True)
class Contest:
    """One task of the contest.

    Args     draw: a batch for training. config: of HOPE; the Transformer takes its sizes. rates: the grid. steps: of
             training; tuning_steps: when the rate is chosen. models: who takes part. seeds: how many are reported.
             live: whose weights of seed 0 are kept.
    """

    draw: Draw
    config: HopeConfig
    rates: tuple[float, ...]
    steps: int
    tuning_steps: int
    models: tuple[str, ...]
    seeds: int
    live: tuple[str, ...] = ()


CHANGES: dict[str, dict[str, Any]] = {  # of HOPE, each one setting
    "hope": {},
    "hope_never": {"learns": "never"},
    "hope_one_period": {"periods": (64, 64, 64)},
    "hope_longer": {},
    "hope_chunk_16": {"chunk": 16},
    "no DGD": {"write": "hebbian"},
    "with momentum": {"momentum": 0.5},
    "no decay": {"decay": False},
    "no CMS": {"cms": False},
    "no inner projections": {"rewrite": False},
}
ABLATIONS = tuple(CHANGES)[5:]
OTHERS: dict[str, Callable[[HopeConfig], TokenModel]] = {
    "transformer": TransformerLM,
    "transformer_conv": lambda config: TransformerLM(config, conv_width=4),
    "transformer_nope": lambda config: _without_positions(config),
}
OTHERS |= {name: OTHERS[of] for name, of in SAME_TIME.items()}

CONTESTS: dict[str, Contest] = {
    "stream": Contest(
        partial(switching.one_switch, 16),
        HopeConfig(switching.SYMBOLS, blocks=1, chunk=16, periods=(16, 64)),
        (4e-3, 8e-3, 1.6e-2, 3.2e-2),
        300,
        150,
        ("hope", "transformer_conv", "transformer"),
        3,
        ("hope", "transformer_conv"),
    ),
    "language": Contest(
        window,
        HopeConfig.tiny(82),
        (2.5e-3, 5e-3, 1e-2, 2e-2, 4e-2),
        200,
        100,
        ("hope", "transformer", "hope_never", "hope_one_period", "transformer_conv", *SAME_TIME, *LONGER, *ABLATIONS),
        5,
        ("hope", "transformer"),
    ),
    "parity": Contest(
        words,
        HopeConfig(2, dim=16, blocks=1, chunk=1, conv_width=1, periods=(8, 16)),
        (5e-3, 1e-2, 2e-2, 4e-2),
        150,
        150,
        ("hope", "hope_chunk_16", "transformer"),
        5,
    ),
    "passkey": Contest(
        partial(passkey.passkey, 32),
        HopeConfig(passkey.SYMBOLS, chunk=16, periods=(32, 64)),
        (4e-3, 8e-3, 1.6e-2, 3.2e-2),
        300,
        300,
        ("hope", "transformer_conv", "transformer_nope"),
        3,
    ),
}


def untrained(task: str, name: str, seed: int = 0) -> TokenModel:
    """Return a new model of a task; a seed always gives the same weights.

    Args     task: a key of CONTESTS. name: a key of CHANGES or OTHERS. seed: of the weights.
    Raises   ValueError for another task or name.
    """
    config = find(task, name).config
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        return OTHERS[name](config) if name in OTHERS else HopeLM(config.with_(**CHANGES[name]))


def trained(task: str, name: str) -> TokenModel:
    """Return a model whose weights travel with the package, as it was trained with seed 0.

    Raises   ValueError for another task or name, or if the weights were not kept.
    """
    model = untrained(task, name)
    model.load_state_dict(load_checkpoint(f"{task}_{name}"))
    return model.eval()


def learn(task: str, name: str, seed: int, rate: float, steps: int | None = None) -> tuple[TokenModel, dict[str, Any]]:
    """Train a model; return it, and what it took: steps, CPU seconds, parameters, the loss of the last 20 steps.

    Args     task, name: as in `untrained`. seed: of the weights and of the batches. rate: the highest learning rate.
             steps: None for those of the task; the tuning seed trains for fewer.
    Raises   ValueError as in `untrained`; FloatingPointError if the loss is no longer finite.
    """
    one, model = find(task, name), untrained(task, name, seed)
    steps = steps or (one.tuning_steps if seed == TUNING_SEED else one.steps)
    begin = time.process_time()
    losses = fit_tokens(model, one.draw, steps=steps, lr=rate, seed=seed)
    row = {"rate": rate, "steps": steps, "cpu_seconds": round(time.process_time() - begin, 1)}
    row["parameters"] = sum(weight.numel() for weight in model.parameters())
    return model, {**row, "loss": round(sum(losses[-20:]) / len(losses[-20:]), 4)}


@torch.no_grad()
def tuning_loss(task: str, model: TokenModel, batches: int = 8) -> float:
    """Return the mean loss on the sequences that choose the learning rate, in nats."""
    generator = torch.Generator().manual_seed(TUNED_ON)
    model.eval()
    return sum(float(token_loss(model, CONTESTS[task].draw(generator))) for _ in range(batches)) / batches


def tuned_as(name: str) -> str:
    """Return the model whose learning rate this one takes: HOPE or the Transformer, the first of its family.

    Momentum makes every write longer, so it is tuned by itself.
    """
    if name in CHANGES and name != "with momentum":
        return "hope"
    return "transformer_conv" if name == "transformer_nope" else SAME_TIME.get(name, name)


def find(task: str, name: str) -> Contest:
    """Return the task.

    Raises   ValueError that names the tasks or the models there are.
    """
    if task not in CONTESTS:
        raise ValueError(f"expected one of the tasks {', '.join(CONTESTS)}; got {task!r}")
    if name not in CHANGES and name not in OTHERS:
        raise ValueError(f"expected one of the models {', '.join((*CHANGES, *OTHERS))}; got {name!r}")
    return CONTESTS[task]


def _without_positions(config: HopeConfig) -> TokenModel:
    """Return the Transformer whose order comes from a convolution alone."""
    mixers = [SoftmaxAttention(config.dim, config.heads, "none", conv_width=4) for _ in range(config.blocks)]
    return TokenModel(config.vocabulary, config.dim, mixers, config.static_ffn, tied=config.tied)
