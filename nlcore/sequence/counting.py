r"""Which memories learn to count to two: one tiny model around each of them, and the eigenvalue of its steps.

Everything but the memory is held fixed: an embedding of two bits, one block with a feed-forward network, 16 numbers a
token, two heads, words of 3 to 20 bits, one recipe of training. No memory has a convolution, so a key, a value and a
gate that come from frozen projections depend on the bit alone, and a bit is one matrix that can be looked at.

Source    parity: Nested Learning, Table 5, after Irie et al. 2023; eigenvalues: Grazzi et al. 2025 (arXiv 2411.12537).
          The small models are ours.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from nlcore.sequence.fitting import fit_tokens, token_accuracy
from nlcore.sequence.layers.frame import MixerState
from nlcore.sequence.layers.gru import GRU
from nlcore.sequence.layers.memories import DeltaRule, LinearAttention, SoftmaxAttention
from nlcore.sequence.layers.titans import Titans
from nlcore.sequence.model import TokenModel
from nlcore.sequence.self_modifying import SelfModifyingTitans, transition_eigenvalue
from nlcore.sequence.self_modifying.boxes import Generated, generate
from nlcore.sequence.self_modifying.rules import Boxes
from nlcore.tasks.formal import formal_language
from nlcore.tasks.tokens import TokenBatch

DIM, HEADS = 16, 2
LENGTHS, WORDS = (3, 20), 32  # bits of a word in training; words in a batch
STEPS, RATE = 120, 2e-2
TESTED = (20, 40, 80, 160)  # up to eight times the longest trained word
F64 = torch.float64
ALONE: dict[str, Any] = {"conv_width": 1, "dtype": F64}
CHUNKS = (1, 2, 4, 8)


def _own(chunk: int, **rules: Any) -> Callable[[], nn.Module]:
    return partial(SelfModifyingTitans, DIM, HEADS, memory_chunk=chunk, **rules, **ALONE)


COUNTERS: dict[str, Callable[[], nn.Module]] = {
    "GRU": partial(GRU, DIM, dtype=F64),
    "softmax, rotary": partial(SoftmaxAttention, DIM, HEADS, **ALONE),
    "softmax, no positions": partial(SoftmaxAttention, DIM, HEADS, positions="none", **ALONE),
    "linear attention": partial(LinearAttention, DIM, HEADS, chunk_size=20, **ALONE),
    "delta rule, rate below 1": partial(DeltaRule, DIM, HEADS, chunk_size=20, **ALONE),
    "delta rule, rate below 2": partial(DeltaRule, DIM, HEADS, lr_max=2.0, chunk_size=20, **ALONE),
    "Titans": partial(Titans, DIM, HEADS, chunk_size=20, **ALONE),
    **{f"self-modifying, C = {chunk}": _own(chunk) for chunk in CHUNKS},
    "only memory rewritten, C = 1": _own(1, rewrite=("memory",)),
    "literal (NL 93), C = 1": _own(1, rule="dgd_l2"),
}


def counter(name: str, seed: int = 0) -> TokenModel:
    """Return a new model in float64; a seed always gives the same weights.

    Args     name: a key of COUNTERS. seed: of the weights.
    Raises   ValueError for another name.
    """
    if name not in COUNTERS:
        raise ValueError(f"expected one of {', '.join(map(repr, COUNTERS))}; got {name!r}")
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        return TokenModel(2, DIM, [COUNTERS[name]()], dtype=F64)


def words(generator: torch.Generator, count: int = WORDS, length: int | None = None) -> TokenBatch:
    """Return words of bits with their parity at each position: of 3 to 20 bits, or all of one length."""
    return formal_language("parity", count, generator, lengths=LENGTHS if length is None else (length, length))


def learn_to_count(name: str, seed: int = 0, steps: int = STEPS, rate: float = RATE) -> tuple[TokenModel, list[float]]:
    """Train a model on parity; return it and the loss of each batch.

    Args     name: a key of COUNTERS. seed: of the weights and of the words. steps: updates. rate: the highest learning
             rate.
    Raises   ValueError for another name.
    """
    model = counter(name, seed)
    return model, fit_tokens(model, words, steps=steps, lr=rate, seed=seed)


def counts_right(model: TokenModel, length: int, seed: int = 3000, count: int = 128) -> float:
    """Return the part of the positions of fresh words of one length, in [0, 1], whose parity the model says right."""
    return token_accuracy(model, words(torch.Generator().manual_seed(seed), count, length))


@torch.no_grad()
def bit_eigenvalues(model: TokenModel, seed: int = 3000, count: int = 16) -> Tensor | None:
    """Return what a step on a bit multiplies by, beside alpha: eigenvalues, (heads, bits 0 and 1), complex128.

    Along its key a step of the delta rule has the eigenvalue 1 - eta; Titans has a pair for memory and momentum, of
    which the one with an imaginary part >= 0 is given; a self-modifying step has alpha - eta k . (k - v), its mean over
    words, as there it depends on what was read before. All keys have length one. None for other memories, and for
    chunks longer than a token, where a bit alone is no step.

    Args     model: as from `counter`. seed, count: words of the longest trained length, for self-modifying memories.
    """
    block: Any = model.blocks[0]
    layer, x = block.mixer, block.mixer_norm(model.embedding.weight)[None]  # (1, 2, dim), both bits as a word
    if isinstance(layer, DeltaRule):
        lr, retain = layer.gates(x)
        return _both(torch.as_tensor(retain - lr))
    if isinstance(layer, Titans):
        gates = [number if gate is None else gate(x) for number, gate in _titans_gates(layer)]
        return _both(momentum_eigenvalue(*gates))
    if isinstance(layer, SelfModifyingTitans) and layer.rules.chunks == (1, 1) and layer.boxes == "matrix":
        return _both(_mean_step(model, layer, words(torch.Generator().manual_seed(seed), count, LENGTHS[1]).tokens))
    return None


def momentum_eigenvalue(lr: Tensor | float, momentum: Tensor | float, retain: Tensor | float = 1.0) -> Tensor:
    r"""Return the eigenvalue of a Titans step on memory and momentum along the key, imaginary part >= 0, complex.

    The step is [[alpha - eta, beta], [-eta, beta]] for a key of length one. Real pairs give the one further from zero.

    Args     lr: eta; momentum: beta; retain: alpha; numbers or tensors that broadcast.
    Returns  the shape of the arguments.
    """
    eta, beta, alpha = (torch.as_tensor(part, dtype=torch.complex128) for part in (lr, momentum, retain))
    half = (alpha - eta + beta) / 2
    under = half**2 - alpha * beta
    return half + torch.where((under.real > 0) & (half.real < 0), -under.sqrt(), under.sqrt())


def generated(layer: SelfModifyingTitans, x: Tensor, state: MixerState | None = None) -> Generated:
    """Return what the matrix boxes of a layer generate for its next token, before it is read.

    Args     layer: with chunks of 1. x: (B, 1, dim), what the layer would be given. state: of the stream; None begins.
    """
    tail, memory, _ = state or (None, None, 0)
    lines = [x if layer.W_x is None else layer.W_x(x)] + ([] if layer.W_q is None else [layer.W_q(x)])
    mixed, _ = layer.convolution(torch.cat(lines, -1), tail, None)
    own = mixed.unflatten(-1, (len(lines), layer.heads, layer.width)).permute(2, 0, 3, 1, 4)[0]  # (B, H, 1, d)
    S = layer.start.expand(len(x), -1, -1, -1) if memory is None else memory.S
    return generate(own, S, Boxes(layer.start, layer.lr_bias, layer.retain_bias), layer.rules)


def _mean_step(model: TokenModel, layer: SelfModifyingTitans, tokens: Tensor) -> Tensor:
    """Return the mean eigenvalue on each bit, (1, H, 2), along words."""
    block: Any = model.blocks[0]
    x, state, found = block.mixer_norm(model.embedding(tokens)), None, []
    for x_t in x.split(1, 1):
        made = generated(layer, x_t, state)
        retain = 1.0 if made.log_retain is None else made.log_retain.exp()
        lr = 2 * made.lr if layer.rules.rule == "dgd_l2" else made.lr  # the old answer is subtracted twice
        v = made.v / 2 if layer.rules.rule == "dgd_l2" else made.v
        found.append(transition_eigenvalue(made.k, v, lr, retain))  # (B, H, 1)
        _, state = layer(x_t, state)
    by_token = torch.cat(found, -1)  # (B, H, T)
    bits = torch.stack([(tokens == bit)[:, None].expand_as(by_token) for bit in (0, 1)], -1)
    return (by_token[..., None] * bits).sum((0, 2))[None] / bits.sum((0, 2))


def _titans_gates(layer: Titans) -> list[tuple[float, nn.Module | None]]:
    return [(0.0, layer.lr_gate), (layer.momentum, layer.momentum_gate), (layer.retain, layer.retain_gate)]


def _both(found: Tensor) -> Tensor:
    return found[0].detach().to(torch.complex128)
