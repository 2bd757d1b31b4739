"""Exercises of notebook 09: attention as a weighted mean, a stream of writes (and `attention_chunks`)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from nlcore.course.exercises.attention_chunks import AS_TRANSITION, CHUNK_ERRORS, draw
from nlcore.course.exercises.framework import Exercise, Mistake, Stage
from nlcore.memory import hebbian, read


def attend(q: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Return the mean of the values, weighted by the softmax of keys . q / sqrt(d)."""
    weights = torch.softmax(keys @ q / len(q) ** 0.5, dim=0)
    return weights @ values


def read_stream(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Write each pair into one memory, then ask it; return all answers."""
    M = torch.zeros(v.shape[1], k.shape[1], dtype=v.dtype)
    answers = []
    for t in range(len(q)):
        M = hebbian(M, k[t], v[t])
        answers.append(M @ q[t])
    return torch.stack(answers)


def _attend_oracle(q: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    return scaled_dot_product_attention(q[None], keys, values)[0]


def _overflows(q: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    s = (keys @ q / len(q) ** 0.5).exp()
    return (s / s.sum()) @ values


def _not_divided(q: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    return (keys @ q / len(q) ** 0.5).exp() @ values


def _linear_weights(q: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    scores = keys @ q / len(q) ** 0.5
    return (scores / scores.sum()) @ values


def _raw_scores(q: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    return (keys @ q / len(q) ** 0.5) @ values


def _scaled_by(power: float, q: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    return torch.softmax(keys @ q / len(q) ** power, 0) @ values


def _scaled_by_count(q: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    return torch.softmax(keys @ q / len(keys) ** 0.5, 0) @ values


def _nearest(q: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    return values[(keys @ q).argmax()]


ATTEND = Exercise(
    name="attend",
    notebook="09",
    solution=attend,
    oracle=_attend_oracle,
    stages=(
        Stage("one pair, whatever is asked", lambda: (*draw(1, (4,), (1, 4), (1, 2)),)),
        Stage("two pairs", lambda: (*draw(2, (4,), (2, 4), (2, 2)),)),
        Stage("nine pairs and long values", lambda: (*draw(3, (3,), (9, 3), (9, 5)),)),
        Stage("very long keys", lambda: (draw(4, (4,))[0], 1e4 * draw(5, (6, 4))[0], draw(6, (6, 3))[0])),
    ),
    mistakes=(
        Mistake(
            _overflows,
            "Your formula is right, but exp of a large number is infinite, and infinite / infinite is no number. "
            "torch.softmax takes the largest score away first, which changes nothing else.",
        ),
        Mistake(
            _not_divided,
            "Your weights do not sum to 1: divide by their sum, or use torch.softmax. For one pair the answer is v.",
        ),
        Mistake(_linear_weights, "Your weights are the scores themselves and can be negative. Take exp of them first."),
        Mistake(
            _raw_scores,
            "You add the values, each times its score. That is linear attention (section 2). Here: a softmax of them.",
        ),
        Mistake(
            lambda q, keys, values: _scaled_by(0.0, q, keys, values),
            "The scores are not scaled: divide them by sqrt(d), where d is the length of q.",
        ),
        Mistake(lambda q, keys, values: _scaled_by(1.0, q, keys, values), "Divide by sqrt(d), not by d."),
        Mistake(_scaled_by_count, "d is the length of a key, len(q), and not the number of pairs."),
        Mistake(_nearest, "You return the value of the nearest key alone. With softmax every pair has a weight."),
        Mistake(
            lambda q, keys, values: values.mean(0),
            "All your pairs have the same weight. Nearness should count: the softmax of keys @ q / sqrt(d).",
        ),
    ),
    hints=(
        "Three steps: a score for each pair, weights that are positive and sum to 1, a mean of the values.",
        "The scores are keys @ q / len(q) ** 0.5, one for each pair.",
        "weights = torch.softmax(scores, dim=0); return weights @ values.",
    ),
)


def _stream_oracle(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return (q @ k.mT).tril() @ v  # all weights at once, the future cut off


def _reads_first(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return (q @ k.mT).tril(-1) @ v


def _sees_all(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return q @ k.mT @ v


def _forgets(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return (q * k).sum(1, keepdim=True) * v


def _asks_the_key(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return (k @ k.mT).tril() @ v


def _last_only(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return read_stream(q, k, v)[-1]


def _swapped(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    M = torch.zeros(v.shape[1], k.shape[1], dtype=v.dtype)
    return torch.stack([read(M := hebbian(M, b, a), c) for a, b, c in zip(k, v, q, strict=True)])


def _never_kept(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return torch.zeros_like(v)


def _with_softmax(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return scaled_dot_product_attention(q[None], k[None], v[None], is_causal=True)[0]


READ_STREAM = Exercise(
    name="read_stream",
    notebook="09",
    solution=read_stream,
    oracle=_stream_oracle,
    stages=(
        Stage("one token", lambda: (*draw(1, (1, 3), (1, 3), (1, 2)),)),
        Stage("two tokens", lambda: (*draw(2, (2, 3), (2, 3), (2, 2)),)),
        Stage("seven tokens", lambda: (*draw(3, (7, 4), (7, 4), (7, 3)),)),
    ),
    mistakes=(
        Mistake(_reads_first, "You ask before you write, so a token does not see its own pair. Write first, then ask."),
        Mistake(
            _sees_all,
            "You ask at the end, when all pairs are written. Then early tokens see the future: ask inside the loop.",
        ),
        Mistake(_forgets, "Each of your answers knows one pair only. Keep M between the tokens: M = hebbian(M, ...)."),
        Mistake(_asks_the_key, "You ask with the key k[t]. The question is q[t]."),
        Mistake(_last_only, "You return the last answer. Collect one answer for each token, and stack them."),
        Mistake(_swapped, "hebbian(M, k, v) takes the key first, then the value."),
        Mistake(_never_kept, "hebbian returns the new memory and leaves M alone: write M = hebbian(M, k[t], v[t])."),
        Mistake(_with_softmax, "This is softmax attention. Here one matrix M is all there is: no weights, no softmax."),
    ),
    hints=(
        "Begin with a memory of zeros, v.shape[1] rows and k.shape[1] columns, of the dtype of v.",
        "For each t: M = hebbian(M, k[t], v[t]), then the answer M @ q[t].",
        "Collect the answers in a list inside the loop and return torch.stack(answers).",
    ),
)

EXERCISES = (ATTEND, READ_STREAM, AS_TRANSITION, CHUNK_ERRORS)
