"""Self-modifying Titans as a layer: streams, padding, gradients of every weight, levels, hostile input."""

import io
import math
import shutil
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from nlcore.levels import order_levels
from nlcore.sequence import saving
from nlcore.sequence.self_modifying import SelfModifyingTitans

B, T, DIM = 2, 19, 8
F64 = torch.float64
KINDS: dict[str, Callable[..., SelfModifyingTitans]] = {
    "default": SelfModifyingTitans,
    "literal": SelfModifyingTitans.literal,
    "stable": SelfModifyingTitans.stable,
    "networks": lambda *sizes, **more: SelfModifyingTitans(*sizes, boxes="mlp", **more),
    "adaptive q": lambda *sizes, **more: SelfModifyingTitans(*sizes, adaptive_q=True, **more),
    "memory only": lambda *sizes, **more: SelfModifyingTitans(*sizes, rewrite=("memory",), **more),
    "momentum": lambda *sizes, **more: SelfModifyingTitans(*sizes, momentum=0.5, lr_max=0.5, target_bound=4.0, **more),
    "gate": lambda *sizes, **more: SelfModifyingTitans(*sizes, gate=True, **more),
}


def layer(kind: str = "default", heads: int = 2, **more: object) -> SelfModifyingTitans:
    torch.manual_seed(0)
    return KINDS[kind](DIM, heads, **{"memory_chunk": 4, "projection_chunk": 3, "dtype": F64, **more})


def tokens(length: int = T) -> Tensor:
    return torch.randn(B, length, DIM, dtype=F64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_every_weight_gets_a_gradient_and_both_forms_agree(kind: str, heads: int) -> None:
    model, x = layer(kind, heads), tokens()
    found = []
    for model.token_by_token in (False, True):
        y, _ = model(x)
        grads = torch.autograd.grad((y * x).sum(), list(model.parameters()))
        found.append([y, *grads])
    for name, grad in zip(dict(model.named_parameters()), found[0][1:], strict=True):
        assert grad.isfinite().all() and grad.abs().max() > 0.0, name
    assert max((a - b).abs().max() for a, b in zip(*found, strict=True)) < 1e-10


@pytest.mark.parametrize("kind", KINDS)
def test_a_stream_may_be_cut_and_saved_anywhere(kind: str) -> None:
    model, x = layer(kind), tokens()
    with torch.no_grad():
        whole, end = model(x)
        answers, state = [], None
        for piece in x.split((4, 1, 0, 2, 7, 5), 1):
            y, state = model(piece, state)
            answers.append(y)
            file = io.BytesIO()
            torch.save(saving.as_plain(state), file)
            file.seek(0)
            state = saving.from_plain(torch.load(file, weights_only=True))
    assert (torch.cat(answers, 1) - whole).abs().max() < 1e-11
    assert state.tokens == end.tokens == T and state.memory.tokens == T


@pytest.mark.parametrize("kind", KINDS)
def test_padding_later_tokens_and_other_streams_change_nothing(kind: str) -> None:
    model, x = layer(kind), tokens()
    with torch.no_grad():
        y, state = model(x, lengths=torch.tensor([T, 7]))
        alone, short = model(x[1:, :7])
        assert (y[1:, :7] - alone).abs().max() < 1e-12 and not y[1, 7:].any()
        parts = zip(state.memory, short.memory, strict=True)
        assert all((a[1:] - b).abs().max() < 1e-12 for a, b in parts if isinstance(a, Tensor))
        assert (state.tail[1:] - short.tail).abs().max() == 0.0
        later = x.clone()
        later[:, 9:] += 1.0
        assert (model(later)[0][:, :9] - model(x)[0][:, :9]).abs().max() < 1e-13
        assert (model(later)[0][0, 9:] - y[0, 9:]).abs().max() > 1e-3


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("literal", "gate")])
@pytest.mark.parametrize("what", ["zero", "one", "huge", "repeated", "five in turn"])
def test_hostile_input_gives_numbers(kind: str, what: str) -> None:
    model = layer(kind, dtype=torch.float32, memory_chunk=16, projection_chunk=16)
    x = tokens(5).float()
    x = {
        "zero": torch.zeros(B, 300, DIM),
        "one": torch.ones(B, 300, DIM),
        "huge": 1e15 * x.repeat(1, 60, 1),
        "repeated": x[:, :1].repeat(1, 1000, 1),
        "five in turn": x.repeat(1, 200, 1),
    }[what]
    y, state = model(x)
    y.square().mean().backward()
    assert y.isfinite().all() and all(p.isfinite().all() for p in state.memory if isinstance(p, Tensor))
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in model.parameters())


def test_bfloat16_keeps_the_state_in_float32() -> None:
    model = layer(dtype=torch.bfloat16)
    y, state = model(tokens().bfloat16())
    assert y.dtype == torch.bfloat16 and state.memory.S.dtype == torch.float32


@pytest.mark.parametrize("kind", ["default", "stable", "networks", "momentum", "memory only", "two sizes"])
def test_one_compiled_chunk_serves_all_chunks_and_gives_the_same(kind: str) -> None:
    """A stream of nine chunks and a ragged end, in two pieces: few graphs, the same answers, state and gradients."""
    chunk = 6 if kind == "two sizes" else 4
    kind = "default" if kind == "two sizes" else kind
    graphs = []

    def count(graph: torch.fx.GraphModule, _: list) -> Callable:
        graphs.append(graph)
        return graph.forward

    plain, fast = layer(kind, projection_chunk=chunk), layer(kind, projection_chunk=chunk)
    fast.compile(backend=count)
    x, found = tokens(38), []
    for model in (plain, fast):
        torch.compiler.reset()
        first, state = model(x[:, :16])
        rest, state = model(x[:, 16:], state)
        y = torch.cat([first, rest], 1)
        grads = torch.autograd.grad((y * x).sum(), list(model.parameters()))
        found.append([y, *grads, *(part for part in state.memory[:2])])
    assert max((a - b).abs().max() for a, b in zip(*found, strict=True)) < 1e-10
    of_chunks = [graph for graph in graphs if "triangular" in graph.code]
    most = 3 if chunk == 4 else 5  # of two sizes: where both chunks begin, and where only the shorter one does
    assert 1 <= len(of_chunks) <= most, "expected one graph for the first chunk of a stream and one for all others"


@pytest.mark.skipif(shutil.which("g++") is None, reason="compiling on a CPU needs a C++ compiler, and none is here")
def test_a_compiled_layer_trains_as_the_plain_one() -> None:
    torch.compiler.reset()
    plain, fast = layer(projection_chunk=4), layer(projection_chunk=4)
    fast.backend = "inductor"
    x, losses = tokens(16), []
    for model in (plain, fast):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(3):
            loss = (model(x)[0] - x).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    assert losses[:3] == pytest.approx(losses[3:], rel=1e-9)
    assert losses[2] < losses[0]


def test_levels_are_the_memory_the_projections_and_what_stays() -> None:
    found = {level.name: level.period for level in layer().levels()}
    assert found == {"memory": 4, "lr retain k v": 3}
    assert {level.name: level.period for level in layer("memory only").levels()} == {
        "memory": 4,
        "lr retain k v": math.inf,
    }
    assert {level.name: level.period for level in layer(rewrite=("k",), adaptive_q=True).levels()} == {
        "k q": 3,
        "lr retain v memory": math.inf,
    }
    assert sum(level.numbers for level in layer().levels()) == layer().start.numel()
    networks = layer("networks")
    assert sum(level.numbers for level in networks.levels()) == sum(w.numel() for w in (networks.W1, networks.W2))
    assert len(order_levels(layer().levels())) == 2
    assert "every 3 steps" in repr(layer())


def test_presets_are_what_they_are_called() -> None:
    literal, stable = layer("literal").rules, layer("stable").rules
    assert (literal.rule, literal.decay_to, literal.unit_values, literal.own_value) == ("dgd_l2", "zero", False, False)
    assert (stable.rule, stable.decay_to, stable.target_bound) == ("delta", "start", 4.0)
    rate = layer("stable").rate_logit
    assert rate is not None and rate.sigmoid().item() == pytest.approx(0.05)
    assert layer("literal", rule="delta").rules.rule == "delta"


def test_chunk_sizes_can_be_changed_afterwards() -> None:
    model, x = layer(memory_chunk=16, projection_chunk=None), tokens()
    first = model(x)[0]
    assert (model.with_chunks(1)(x)[0] - first).abs().max() > 1e-6
    assert (model.with_chunks(16)(x)[0] - first).abs().max() == 0.0


def test_it_learns_to_answer_a_repeated_pair() -> None:
    """Streams a b a b ...: after training, the loss of the second half is far below that of an untrained layer."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(6, 8), SelfModifyingTitans(8, 1, memory_chunk=4))
    head = nn.Linear(8, 6)
    optimizer = torch.optim.AdamW([*model.parameters(), *head.parameters()], lr=1e-2)
    draw, losses = torch.Generator().manual_seed(2), []
    for _ in range(60):
        pair = torch.stack([torch.randperm(6, generator=draw)[:2] for _ in range(16)])
        words = pair.repeat(1, 6)
        logits = head(model(words)[0])
        loss = nn.functional.cross_entropy(logits[:, 4:-1].flatten(0, 1), words[:, 5:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-5:]) / 5 < 0.5 * losses[0]


def test_wrong_settings_and_input_are_named() -> None:
    wrong: list[tuple[str, dict]] = [
        ("boxes must be", {"boxes": "tree"}),
        ("heads must divide", {"heads": 3}),
        ("rate must lie", {"rate": 1.0}),
        ("lr_start must lie", {"lr_start": 0.0}),
        ("retain_start must lie", {"retain_start": 1.0}),
        ("rule must be", {"rule": "none"}),
    ]
    for words, settings in wrong:
        with pytest.raises(ValueError, match=words):
            SelfModifyingTitans(8, **settings)
    model, x = layer(), tokens()
    _, state = model(x)
    with pytest.raises(ValueError, match="another stream"):
        model(x[:1], state)
    with pytest.raises(TypeError, match="MixerState"):
        model(x, (1, 2, 3))
    with pytest.raises(TypeError, match="convert"):
        model(x.float())
    with pytest.raises(ValueError, match="batch first"):
        model(x[0])
    with pytest.raises(ValueError, match="lengths"):
        model(x, lengths=torch.tensor([T + 1, 2]))
