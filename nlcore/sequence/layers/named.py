"""The memories of the experiments by name, so that one word chooses what is compared.

    softmax        all pairs, rotary positions           delta         corrects, eta in (0, 1)
    softmax_nope   all pairs, no positions               delta2        corrects, eta in (0, 2)
    window         the last 32 pairs, rotary             gated_delta   corrects, with a learned decay
    linear         adds                                  titans        corrects, with momentum and decay
    retnet         adds, a fixed decay a head            titans_mlp    the same, a network for a memory
    gated_linear   adds, with a learned decay            gru           the yardstick that is no memory of pairs

All but the GRU have a convolution of width 4 after queries, keys and values, so that only the memory differs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from torch import nn

from nlcore.optimizers.checks import check_choice
from nlcore.sequence.layers.gru import GRU
from nlcore.sequence.layers.memories import DeltaRule, LinearAttention, SoftmaxAttention
from nlcore.sequence.layers.titans import Titans
from nlcore.sequence.model import TokenModel


def _gru(dim: int, heads: int = 1, **settings: Any) -> nn.Module:
    return GRU(dim, **settings)


MIXERS: dict[str, Callable[..., nn.Module]] = {
    "softmax": SoftmaxAttention,
    "softmax_nope": partial(SoftmaxAttention, positions="none"),
    "window": partial(SoftmaxAttention, window=32),
    "linear": LinearAttention,
    "retnet": partial(LinearAttention, retain="fixed"),
    "gated_linear": partial(LinearAttention, retain="learned"),
    "delta": DeltaRule,
    "delta2": partial(DeltaRule, lr_max=2.0),
    "gated_delta": partial(DeltaRule, retain="learned"),
    "titans": Titans,
    "titans_mlp": partial(Titans, memory="mlp"),
    "gru": _gru,
}


def mixer(name: str, dim: int, heads: int = 1, **settings: Any) -> nn.Module:
    """Return a new layer by name.

    Args     name: one of the names above. dim: width of a token. heads: memories side by side (a GRU has none).
             settings: other settings of the layer, such as window or dtype.
    Raises   ValueError for another name or settings that do not fit.
    """
    check_choice("name", name, tuple(MIXERS))
    return MIXERS[name](dim, heads, **settings)


def named_model(
    names: str | Sequence[str], vocabulary: int, dim: int = 64, heads: int = 2, ffn: float = 2, **settings: Any
) -> TokenModel:
    """Return a new model of one block a name.

    Args     names: a name, or one a block. vocabulary: how many tokens. dim, heads, ffn: sizes, as in the experiments.
             settings: tied, dtype, device, as for `TokenModel`.
    Raises   as `mixer` and `TokenModel`.
    """
    made = {name: settings[name] for name in ("dtype", "device") if name in settings}
    words = [names] if isinstance(names, str) else names
    return TokenModel(vocabulary, dim, [mixer(word, dim, heads, **made) for word in words], ffn, **settings)
