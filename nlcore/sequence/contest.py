"""The contest of token memories: the same small model around each memory, on recall, needles and a stream.

Everything but the memory is held fixed: embedding, blocks with a feed-forward network, the number of steps, the recipe
of training. Each family of models has the same grid of learning rates, and its choice is made on a tuning seed, by the
loss on sequences that no reported result sees; `tuned_as` says which model chose for which. The recurrent network (GRU)
is the yardstick that is no memory of pairs.

Source    the experiments are ours; Nested Learning compares on MAD, RULER and formal languages (Tables 1, 3 and 5).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from nlcore.checkpoints import load_checkpoint
from nlcore.sequence.ablations import frozen, only_memories
from nlcore.sequence.fitting import Draw, fit_tokens, nats_by_position, token_accuracy, token_loss
from nlcore.sequence.layers.named import MIXERS
from nlcore.sequence.model import TokenModel
from nlcore.sequence.self_modifying import SelfModifyingTitans
from nlcore.tasks import passkey, recall, switching

RATES = (3e-3, 1e-2, 2e-2)
LIKE = {"softmax_nope": "softmax", "window": "softmax", "delta2": "delta", "gated_delta": "delta"}
TUNING_SEED, TUNED_ON, TESTED_ON = 1000, 2000, 3000  # training; sequences that choose the rate; reported sequences

BATCH = 32  # sequences a step
LAYERS: dict[str, Callable[..., nn.Module]] = {
    **MIXERS,
    "self_modifying_16": partial(SelfModifyingTitans, memory_chunk=16),
}


@dataclass(frozen=True)
class TokenTask:
    """One experiment: what is drawn, the size of the model, who takes part.

    Args     draw: a batch for training. tests: what is reported, by name. models: keys of LAYERS. live: those whose
             trained weights are kept. symbols: of the task. dim, heads, layers: of the model. steps: of training.
             tuning_steps: of training when rates are chosen. like: model -> the one whose rate it takes, if it is not
             tuned itself. seeds: how many are reported. dtype: of the weights.
    """

    draw: Draw
    tests: Mapping[str, Draw]
    models: tuple[str, ...]
    live: tuple[str, ...]
    symbols: int
    dim: int
    steps: int
    tuning_steps: int
    like: Mapping[str, str] = field(default_factory=lambda: LIKE)
    heads: int = 2
    layers: int = 1
    seeds: int = 3
    dtype: torch.dtype = torch.float32


def _recall(overwrite: bool, **others: Any) -> TokenTask:
    made = partial(recall.recall, overwrite=overwrite)
    tests = {str(N): partial(made, 256, pairs=(N,)) for N in (4, 8, 16, 24, 32)}
    return TokenTask(
        partial(made, BATCH), tests, symbols=recall.KEYS + recall.VALUES, steps=500, tuning_steps=400, **others
    )


RECALLERS = ("softmax", "softmax_nope", "linear", "delta", "titans", "gru")
TASKS: dict[str, TokenTask] = {
    "recall": _recall(False, dim=32, models=RECALLERS, live=("linear", "delta")),
    "recall_overwritten": _recall(True, dim=64, models=(*RECALLERS, "self_modifying_16"), live=()),
    "stream": TokenTask(
        partial(switching.one_switch, BATCH),
        {"A | B | A": partial(switching.switching, 256)},
        ("softmax", "linear", "delta", "gated_delta", "titans", "self_modifying_16"),
        (),
        symbols=switching.SYMBOLS,
        dim=64,
        steps=300,
        tuning_steps=150,
    ),
    "passkey": TokenTask(
        partial(passkey.passkey, BATCH),
        {str(T): partial(passkey.passkey, 64, lengths=(T,)) for T in (64, 128, 256, 512, 1024, 2048)},
        ("softmax", "softmax_nope", "window", "delta", "gated_delta", "titans", "gru"),
        ("softmax", "softmax_nope", "delta"),
        symbols=passkey.SYMBOLS,
        dim=64,
        layers=2,
        steps=400,
        tuning_steps=200,
    ),
}


def tuned_as(task: str, name: str) -> str:
    """Return the model whose learning rate this one takes: itself, or another of its family."""
    return find(task, name).like.get(name, name)


def untrained(task: str, name: str, seed: int = 0) -> TokenModel:
    """Return a new model of a task; a seed always gives the same weights.

    Args     task: a key of TASKS. name: a key of LAYERS. seed: of the weights.
    Raises   ValueError for another task or name.
    """
    one = find(task, name)
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        layers = [LAYERS[name](one.dim, one.heads, dtype=one.dtype) for _ in range(one.layers)]
        return TokenModel(one.symbols, one.dim, layers, dtype=one.dtype)


def trained(task: str, name: str) -> TokenModel:
    """Return a model whose weights travel with the package, as it was trained with seed 0.

    Raises   ValueError for another task or name, or if the weights were not kept.
    """
    model = untrained(task, name)
    model.load_state_dict(load_checkpoint(f"{task}_{name}", find(task, name).dtype))
    return model.eval()


def learn(task: str, name: str, seed: int, rate: float) -> tuple[TokenModel, dict[str, Any]]:
    """Train a model; return it, and what it took: CPU seconds, parameters, the loss of the last 20 steps.

    Args     task, name: as in `untrained`. seed: of the weights and of the batches. rate: the highest learning rate.
             The tuning seed trains for fewer steps.
    Raises   ValueError as in `untrained`; FloatingPointError if the loss is no longer finite.
    """
    one, model = find(task, name), untrained(task, name, seed)
    steps = one.tuning_steps if seed == TUNING_SEED else one.steps
    begin = time.process_time()
    losses = fit_tokens(model, one.draw, steps=steps, lr=rate, seed=seed)
    row = {"rate": rate, "cpu_seconds": round(time.process_time() - begin, 1)}
    row["parameters"] = sum(weight.numel() for weight in model.parameters())
    return model, {**row, "loss": round(sum(losses[-20:]) / len(losses[-20:]), 4)}


@torch.no_grad()
def tuning_loss(task: str, model: TokenModel, batches: int = 8) -> float:
    """Return the mean loss on the sequences that choose the learning rate, in nats."""
    generator = torch.Generator().manual_seed(TUNED_ON)
    model.eval()
    return sum(float(token_loss(model, TASKS[task].draw(generator))) for _ in range(batches)) / batches


def measure(task: str, model: TokenModel) -> dict[str, Any]:
    """Return what is reported: accuracies by test, or the loss along the stream, as it is and with parts closed."""
    one = TASKS[task]
    drawn = {label: draw(torch.Generator().manual_seed(TESTED_ON)) for label, draw in one.tests.items()}
    if task == "stream":
        (batch,) = drawn.values()
        row: dict[str, Any] = {"nats": _rounded(nats_by_position(model, batch))}
        for words, closed in {"frozen": frozen, "only memories": only_memories}.items():
            with closed(model) as found:
                row |= {words: _rounded(nats_by_position(model, batch))} if found else {}
        return row
    return {"accuracy": {label: round(token_accuracy(model, batch), 4) for label, batch in drawn.items()}}


def find(task: str, name: str) -> TokenTask:
    """Return the task.

    Raises   ValueError that names the tasks or the models there are.
    """
    if task not in TASKS:
        raise ValueError(f"expected one of the tasks {', '.join(TASKS)}; got {task!r}")
    if name not in LAYERS:
        raise ValueError(f"expected one of the models {', '.join(LAYERS)}; got {name!r}")
    return TASKS[task]


def _rounded(nats: Tensor) -> list[float]:
    return [round(number, 3) for number in nats.tolist()]
