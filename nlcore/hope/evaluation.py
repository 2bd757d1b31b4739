"""How well a model predicts a text: by position, along a stream, and with learning at test time as a yardstick.

Every function takes any model with model(tokens (B, T), state) -> (logits (B, T, S), state), reads in evaluation mode,
and leaves the model as it was. Bits are of one token; `by_stretch` turns them into bits per character.

A stream is read in pieces, and what a piece can use of the past is one setting, `context`:

    None     the state is carried on: everything, as far as the memory of the model keeps it
    c >= 1   the c tokens before the piece, read anew each time: the usual way for a Transformer of bounded length
    0        nothing: each piece begins a new stream

Symbols   N tokens of a stream, so N - 1 predictions; B streams; T tokens each; S symbols.
Source    Dynamic evaluation: Krause, Kahembwe, Murray, Renals 2018, arXiv 1709.07432, here with plain SGD.
"""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from tqdm.auto import tqdm

from nlcore.optimizers.checks import check_count
from nlcore.sequence.saving import detach
from nlcore.training import PROGRESS_VARIABLE

RATES = tuple(0.01 * 2**k for k in range(9))  # 0.01 .. 2.56
MakeOptimizer = Callable[[Iterable[nn.Parameter], float], torch.optim.Optimizer]


class Reading(NamedTuple):
    """What came of reading a stream.

    Args     bits: (N - 1,) float64, the price of each token but the first. state: where the stream stands, or None if
             none was carried.
    """

    bits: Tensor
    state: Any = None


class Dynamic(NamedTuple):
    """Dynamic evaluation with a rate chosen elsewhere.

    Args     lr: the rate that was best on the stretch for tuning. tuning: mean bits there for every rate, 0.0 is no
             learning; infinite if it diverged. bits: (N - 1,) on the test stream. at_edge: the best rate is the
             largest or smallest above 0, so that a wider grid could be better still.
    """

    lr: float
    tuning: dict[float, float]
    bits: Tensor
    at_edge: bool


def read_stream(
    model: nn.Module,
    tokens: Tensor,
    *,
    piece: int = 256,
    context: int | None = None,
    state: Any = None,
    **reading: Any,
) -> Reading:
    """Read one long stream without changing a weight; what a model learns on the way is in its state.

    Args     model: any model of tokens. tokens: (N,), on its device. piece: tokens read at once, which does not change
             the result if the state is carried. context: see above. state: carried on from the stream before, with
             `tokens` beginning at its last token, which the state has not seen yet. reading: other arguments of the
             model, such as frozen=("cms",).
    Raises   ValueError for tokens of another shape, fewer than 2 of them, or a state together with a context.
    """
    cuts = _cuts(tokens, piece, context, state)
    bits = []
    with _evaluating(model), torch.no_grad():
        for begin, end in _with_bar(cuts):
            price, state = _read_piece(model, tokens, begin, end, context, state, reading)
            bits.append(price.double())
    return Reading(torch.cat(bits), state)


def dynamic_evaluation(
    model: nn.Module,
    tokens: Tensor,
    lr: float,
    *,
    piece: int = 64,
    context: int | None = None,
    decay: float = 0.0,
    optimizer: MakeOptimizer = torch.optim.SGD,
    **reading: Any,
) -> Reading:
    """Read a stream and let all weights learn from each piece once it was predicted; a copy learns, not the model.

    For each piece: predict it, note the bits, then take one step down the mean loss of its tokens.

    Args     model, tokens, context: as for `read_stream`; give a Transformer a context that fits its trained length.
             lr: of a step; 0 does not learn. piece: tokens between two steps. decay: how far, in [0, 1], each step
             pulls the weights back to the trained ones. optimizer: makes the optimizer from weights and lr. reading:
             other arguments of the model.
    Returns  the Reading; its bits are infinite from where learning diverged.
    Raises   ValueError as `read_stream`, for a negative rate, or a decay outside [0, 1].
    """
    if not lr >= 0 or not 0 <= decay <= 1:
        raise ValueError(f"expected a rate >= 0 and a decay in [0, 1], got {lr} and {decay}")
    cuts = _cuts(tokens, piece, context, None)
    pupil = copy.deepcopy(model).requires_grad_(True)
    trained = [weight.detach().clone() for weight in pupil.parameters()]
    learner = optimizer(pupil.parameters(), lr)
    bits, state = tokens.new_full((len(tokens) - 1,), math.inf, dtype=torch.float64), None
    with _evaluating(pupil), torch.enable_grad():
        for begin, end in _with_bar(cuts):
            price, state = _read_piece(pupil, tokens, begin, end, context, state, reading)
            if not bool(price.isfinite().all()):
                return Reading(bits)
            bits[begin:end], state = price.detach().double(), detach(state)
            learner.zero_grad()
            (price.mean() * math.log(2.0)).backward()  # nats, as in training
            learner.step()
            _pull_back(pupil, trained, decay)
    return Reading(bits, state)


def tuned_dynamic_evaluation(
    model: nn.Module, tuning: Tensor, tokens: Tensor, rates: Sequence[float] = RATES, **settings: Any
) -> Dynamic:
    """Choose the rate of dynamic evaluation on one stretch, then measure it on another.

    Args     model: any model of tokens. tuning: (M,), the stretch on which the rate is chosen; no part of `tokens`.
             tokens: (N,), the test stream. rates: to choose from; 0, no learning, is always tried too.
             settings: of `dynamic_evaluation`.
    Raises   ValueError for no rates or as `dynamic_evaluation`.
    """
    if not rates or min(rates) <= 0:
        raise ValueError(f"expected rates above 0 to choose from, got {tuple(rates)}")
    tried = sorted({0.0, *map(float, rates)})
    means = {lr: float(dynamic_evaluation(model, tuning, lr, **settings).bits.mean()) for lr in tried}
    best = min(tried, key=means.__getitem__)
    bits = dynamic_evaluation(model, tokens, best, **settings).bits
    return Dynamic(best, means, bits, best in (tried[1], tried[-1]))


def bits_by_position(
    model: nn.Module, tokens: Tensor, length: int, *, rows: int = 16, piece: int = 256, **reading: Any
) -> Tensor:
    """Return the mean bits at each position of streams that all begin anew: within the trained length and beyond it.

    Args     model: any model of tokens. tokens: (N,), a text that was kept apart. length: T, of each stream; as many
             as fit are cut from the text one after the other. rows: streams read at once. piece: tokens read at once;
             the state is carried between pieces. reading: other arguments of the model.
    Returns  (T,), float64; at position t the model has read t + 1 tokens.
    Raises   ValueError if not one stream of T + 1 tokens fits.
    """
    check_count("rows", rows)
    count = (len(tokens) - 1) // check_count("length", length)
    if tokens.ndim != 1 or count < 1:
        raise ValueError(f"expected tokens (N,), at least length + 1 = {length + 1} of them, got {tuple(tokens.shape)}")
    inputs, targets = (tokens[shift : shift + count * length].view(count, length) for shift in (0, 1))
    total = torch.zeros(length, dtype=torch.float64, device=tokens.device)
    with _evaluating(model), torch.no_grad():
        for first in range(0, count, rows):
            state, block = None, slice(first, first + rows)
            for begin in range(0, length, check_count("piece", piece)):
                part = slice(begin, min(begin + piece, length))
                logits, state = model(inputs[block, part], state, **reading)
                total[part] += _bits(logits, targets[block, part]).double().sum(0)
    return total / count


def by_stretch(bits: Tensor, stretch: int, begins: Tensor | None = None) -> Tensor:
    """Return bits per character of consecutive stretches, (ceil(N / stretch),): a curve that can be drawn.

    Args     bits: (N,) of each token. stretch: tokens in one; the last may be shorter. begins: (N,) booleans, where a
             character begins (`Vocabulary.begins` of the predicted tokens); None counts every token as a character.
    Raises   ValueError if the shapes differ.
    """
    counted = torch.ones_like(bits) if begins is None else begins.to(bits)
    if bits.ndim != 1 or counted.shape != bits.shape:
        raise ValueError(f"expected bits and begins (N,), got {tuple(bits.shape)} and {tuple(counted.shape)}")
    parts = zip(bits.split(check_count("stretch", stretch)), counted.split(stretch), strict=True)
    return torch.stack([price.sum() / characters.sum() for price, characters in parts])


def _read_piece(
    model: nn.Module, tokens: Tensor, begin: int, end: int, context: int | None, state: Any, reading: dict[str, Any]
) -> tuple[Tensor, Any]:
    """Return the bits of tokens begin + 1 .. end, (end - begin,), and the state after token end - 1."""
    first = begin if context is None else max(0, begin - context)
    logits, state = model(tokens[None, first:end], state, **reading)
    price = _bits(logits[:, begin - first :], tokens[None, begin + 1 : end + 1])[0]
    return price, state if context is None else None


def _bits(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the price of each target in bits, (B, T)."""
    precise = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return cross_entropy(precise.mT, targets, reduction="none") / math.log(2.0)


def _cuts(tokens: Tensor, piece: int, context: int | None, state: Any) -> list[tuple[int, int]]:
    """Check the input and return where the pieces of the N - 1 inputs begin and end."""
    if not isinstance(tokens, Tensor) or tokens.ndim != 1 or len(tokens) < 2:
        found = tuple(tokens.shape) if isinstance(tokens, Tensor) else type(tokens).__name__
        raise ValueError(f"expected one stream of at least 2 tokens, (N,); got {found}; try vocabulary.encode(text)")
    if context is not None and (context < 0 or state is not None):
        raise ValueError(f"context is None (carry the state on) or >= 0 (and no state is given); got {context}")
    last = len(tokens) - 1
    return [(begin, min(begin + piece, last)) for begin in range(0, last, check_count("piece", piece))]


def _pull_back(pupil: nn.Module, trained: list[Tensor], decay: float) -> None:
    if decay:
        for weight, start in zip(pupil.parameters(), trained, strict=True):
            weight.data.lerp_(start, decay)


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Set evaluation mode, and each module back to what it was."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


def _with_bar(cuts: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    return iter(tqdm(cuts, disable=os.environ.get(PROGRESS_VARIABLE) == "0", leave=False, desc="reading"))
