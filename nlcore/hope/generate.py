"""Write on from a text: draw a token, read it, learn from it, draw the next.

A model of this package that learns while it reads also learns from what it has drawn itself, unless its levels are
frozen. The state goes on: it can be saved, and the next text begins where this one ends.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from nlcore.files import write_atomic
from nlcore.optimizers.checks import check_count
from nlcore.sequence.model import ModelState, TokenModel
from nlcore.sequence.saving import as_plain, from_plain


class Generated(NamedTuple):
    """What was drawn.

    Args     tokens: (B, count), the new tokens. state: after all but the last of them, which is not read yet: begin the
             next text with it.
    """

    tokens: Tensor
    state: ModelState


@torch.no_grad()
def generate(
    model: TokenModel,
    tokens: Tensor,
    count: int,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    state: ModelState | None = None,
    generator: torch.Generator | None = None,
    **reading: Any,
) -> Generated:
    """Read a text and write on.

    Args     model: any `TokenModel`. tokens: (B, T), the text, at least one token. count: how many to draw.
             temperature: logits are divided by it; 0 takes the likeliest. top_k: draw among the k likeliest; None among
             all. state: of the stream so far; None begins new streams. generator: for the draws. reading: other
             arguments of the model, such as frozen=("cms",).
    Returns  the new tokens and the state.
    Raises   ValueError or TypeError for settings that do not fit.
    """
    check_count("count", count)
    how: dict[str, Any] = {"temperature": temperature, "top_k": top_k, "state": state, "generator": generator}
    drawn, after = [], state
    for token, now in islice(stream(model, tokens, **how, **reading), count):
        drawn.append(token)
        after = now
    assert after is not None
    return Generated(torch.stack(drawn, 1), after)


@torch.no_grad()
def stream(
    model: TokenModel,
    tokens: Tensor,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    state: ModelState | None = None,
    generator: torch.Generator | None = None,
    **reading: Any,
) -> Iterator[tuple[Tensor, ModelState]]:
    """Yield tokens (B,) for ever, each with the state before it is read.

    Args, Raises   as for `generate`.
    """
    if not isinstance(tokens, Tensor) or tokens.ndim != 2 or tokens.shape[1] == 0:
        found = tuple(tokens.shape) if isinstance(tokens, Tensor) else type(tokens).__name__
        raise ValueError(f"expected a text (B, T) of at least one token, got {found}; try encode(text)[None]")
    _check_draw(temperature, top_k, model.vocabulary)
    while True:
        logits, state = model(tokens, state, **reading)
        token = draw(logits[:, -1], temperature, top_k, generator)
        yield token, state
        tokens = token.unsqueeze(1)


def draw(logits: Tensor, temperature: float, top_k: int | None, generator: torch.Generator | None) -> Tensor:
    """Draw a token (B,) for logits (B, V); the arguments are those of `generate`."""
    if temperature == 0:
        return logits.argmax(-1)
    logits = logits.float() / temperature
    if top_k is not None:
        least = logits.topk(top_k, -1).values[:, -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    return torch.multinomial(logits.softmax(-1), 1, generator=generator).squeeze(1)


def save_stream(state: ModelState, path: str | Path) -> Path:
    """Write the state of streams to a file, whole or not at all; it holds tensors and numbers only.

    Raises   TypeError for anything else, such as None, the state of a stream that has not begun.
    """
    if not isinstance(state, ModelState):
        raise TypeError(f"expected the state that a model returned, got {type(state).__name__}")
    written = io.BytesIO()
    torch.save(as_plain(state), written)
    return write_atomic(path, written.getvalue())


def load_stream(path: str | Path, device: torch.device | str | None = None) -> ModelState:
    """Return the state that `save_stream` wrote.

    Args     path: the file. device: where to; None is where it was.
    Raises   FileNotFoundError if there is none; ValueError if it is damaged, or holds something else.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no saved stream {path}: expected a file that save_stream wrote")
    data = io.BytesIO(Path(path).read_bytes())
    try:
        saved = torch.load(data, map_location=device, weights_only=True)
    except Exception:  # torch has many words for it, and some advise against safe loading
        raise ValueError(f"expected a saved stream, got {path}, which is damaged or of another kind") from None
    state = from_plain(saved)
    if not isinstance(state, ModelState):
        raise ValueError(f"expected a file with the state of a model, got {type(state).__name__}")
    return state


def _check_draw(temperature: float, top_k: int | None, vocabulary: int) -> None:
    if not (math.isfinite(temperature) and temperature >= 0):
        raise ValueError(
            f"temperature must be a finite number >= 0, got {temperature}; try 1.0, or 0 for the likeliest"
        )
    if top_k is not None and not 1 <= check_count("top_k", top_k) <= vocabulary:
        raise ValueError(f"top_k must lie in 1 .. {vocabulary}, the vocabulary, or be None; got {top_k}")
