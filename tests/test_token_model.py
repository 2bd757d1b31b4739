"""The token model: the formula, streams, padding, causality, gradients, saving, the nest, and that it can learn."""

import io
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad

from nlcore.levels import nest
from nlcore.sequence.layers.memories import DeltaRule, SoftmaxAttention
from nlcore.sequence.layers.named import MIXERS, named_model
from nlcore.sequence.model import Block, FeedForward, ModelState, TokenModel
from nlcore.sequence.saving import as_plain, from_plain

B, T, V = 3, 19, 11
STACKS = [*MIXERS, ("titans", "softmax"), ("gru", "delta", "window")]
EACH = pytest.mark.parametrize("names", STACKS, ids=str)
FEW = pytest.mark.parametrize("names", ["delta", "softmax", ("gru", "titans")], ids=str)


def model_of(names: str | tuple[str, ...] = ("titans", "softmax"), **settings: Any) -> TokenModel:
    return named_model(names, V, 8, 2, **{"dtype": torch.float64, **settings})


def some_tokens(length: int = T) -> Tensor:
    return torch.randint(V, (B, length))


def assert_close(found: Tensor, expected: Tensor, atol: float = 1e-10) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=atol)


def test_it_is_the_formula() -> None:
    model, tokens = model_of("delta"), some_tokens()

    def norm(x: Tensor, weights: nn.Module) -> Tensor:
        return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * weights.scale

    block = model.blocks[0]
    x = model.embedding.weight[tokens]
    x = x + block.mixer(norm(x, block.mixer_norm))[0]
    x = x + block.ffn.down(nn.functional.gelu(block.ffn.up(norm(x, block.ffn_norm))))
    assert_close(model(tokens)[0], norm(x, model.norm) @ model.head.weight.T)


@EACH
@pytest.mark.parametrize("cuts", [(8, 8, 3), (3, 9, 1, 6), (1,) * T])
def test_a_stream_cut_anywhere_is_the_whole(names: str, cuts: tuple[int, ...]) -> None:
    model, tokens = model_of(names), some_tokens()
    whole, _ = model(tokens)
    state, answers = None, []
    for part in tokens.split(cuts, 1):
        logits, state = model(part, state)
        answers.append(logits)
    assert_close(torch.cat(answers, 1), whole)
    assert state is not None and state.tokens == T


@EACH
def test_a_padded_stream_is_each_stream_alone(names: str) -> None:
    model, tokens = model_of(names), some_tokens()
    first, second = torch.tensor([5, 0, 9]), torch.tensor([6, 4, 0])
    logits, state = model(tokens[:, :9], None, first)
    later = torch.stack([row[n : n + 6] for row, n in zip(tokens, first.tolist(), strict=True)])
    more, _ = model(later, state, second)
    for b, (n, m) in enumerate(zip(first.tolist(), second.tolist(), strict=True)):
        alone = model(tokens[b : b + 1, : n + m])[0][0]
        assert_close(torch.cat([logits[b, :n], more[b, :m]]), alone)
        assert logits[b, n:].abs().sum() == more[b, m:].abs().sum() == 0


@EACH
def test_nothing_before_a_changed_token_changes_and_no_other_item(names: str) -> None:
    model, tokens, at = model_of(names), some_tokens(), 8
    changed = tokens.clone()
    changed[1, at:] = (tokens[1, at:] + 1) % V
    moved = (model(tokens)[0] - model(changed)[0]).abs().amax(-1)
    assert moved[[0, 2]].max() == 0 and moved[1, :at].max() < 1e-13 and moved[1, at:].min() > 1e-9


@EACH
@pytest.mark.parametrize("tied", [False, True])
def test_every_weight_gets_a_gradient(names: str, tied: bool) -> None:
    model, tokens = model_of(names, tied=tied), some_tokens()
    loss = nn.functional.cross_entropy(model(tokens)[0].flatten(0, 1), tokens.roll(1, 1).flatten())
    loss.backward()
    silent = [key for key, weight in model.named_parameters() if weight.grad is None or not weight.grad.abs().sum() > 0]
    assert silent == []
    assert abs(loss.item() - math.log(V)) < 1.5


@FEW
def test_a_saved_model_goes_on_after_a_safe_load(names: str) -> None:
    model, tokens = model_of(names), some_tokens()
    whole, _ = model(tokens)
    file = io.BytesIO()
    torch.save({"weights": model.state_dict(), "stream": as_plain(model(tokens[:, :10])[1])}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    torch.manual_seed(1)
    other = model_of(names)
    other.load_state_dict(saved["weights"])
    state = from_plain(saved["stream"])
    assert isinstance(state, ModelState)
    assert_close(other(tokens[:, 10:], state)[0], whole[:, 10:])


@FEW
def test_a_stream_can_be_learned_from_piece_by_piece(names: str) -> None:
    model, tokens, state = model_of(names), some_tokens(20), None
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    for part in tokens.split(5, 1):
        logits, state = model(part, state)
        optimizer.zero_grad()
        logits.square().mean().backward()
        optimizer.step()
        state = state.detach()
    moved = state.to(torch.float32)
    logits, _ = model.float()(tokens, moved)
    assert logits.dtype == torch.float32 and logits.isfinite().all()


@FEW
def test_it_is_a_function_of_its_weights(names: str) -> None:
    model, tokens = model_of(names), some_tokens(7)
    weights = {key: weight.detach() for key, weight in model.named_parameters()}
    slopes = grad(lambda w: functional_call(model, w, (tokens,))[0].square().sum())(weights)
    model(tokens)[0].square().sum().backward()
    for key, weight in model.named_parameters():
        assert_close(slopes[key], weight.grad)


@EACH
def test_bfloat16_and_one_token_for_ever_give_numbers(names: str) -> None:
    model = model_of(names, dtype=torch.bfloat16)
    logits, state = model(some_tokens())
    again = torch.full((B, 150), 3)
    more, _ = model(again, state)
    assert logits.dtype == more.dtype == torch.bfloat16 and logits.isfinite().all() and more.isfinite().all()


def test_it_compiles_without_a_break() -> None:
    model, tokens = model_of(("delta", "window")), some_tokens()
    logits, _ = torch.compile(model, backend="eager", fullgraph=True)(tokens)
    assert_close(logits, model(tokens)[0])


def test_no_tokens_change_nothing() -> None:
    model, tokens = model_of(), some_tokens()
    _, state = model(tokens)
    logits, same = model(tokens[:, :0], state)
    assert logits.shape == (B, 0, V) and same.tokens == T
    assert all(one is other for one, other in zip(same.blocks, state.blocks, strict=True))
    logits, begun = model(tokens[:, :0])
    assert_close(model(tokens, begun)[0], model(tokens)[0])


def test_one_seed_gives_one_model() -> None:
    torch.manual_seed(3)
    one = model_of()
    torch.manual_seed(3)
    other = model_of()
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_a_tied_head_has_no_weights_of_its_own() -> None:
    tied, free = model_of("delta", tied=True), model_of("delta")
    assert tied.head.weight is tied.embedding.weight
    assert sum(w.numel() for w in free.parameters()) - sum(w.numel() for w in tied.parameters()) == V * 8


def test_a_block_takes_no_ffn_or_any_other() -> None:
    x = torch.randn(B, T, 8)
    bare = Block(DeltaRule(8), 8, ffn=0)
    assert bare.ffn is None
    assert_close(bare(x)[0], x + bare.mixer(bare.mixer_norm(x))[0], 1e-6)
    other = Block(DeltaRule(8), 8, ffn=nn.Identity())
    assert isinstance(other.ffn, nn.Identity) and other(x)[0].shape == x.shape
    assert FeedForward(8, 0.5).up.out_features == 4


def test_the_nest_names_every_block_and_the_frozen_weights() -> None:
    model = model_of(("titans", "softmax"))
    assert [level.name for level in model.levels()] == ["block 1: momentum", "block 1: memory", "block 2: attention"]
    words = str(model)
    assert "4 levels, the fastest first" in words and "never (frozen)" in words
    parts = nest(model, torch.optim.AdamW(model.parameters()))
    assert [part.name for part in parts][0] == "block 2: attention" and "weights" in [part.name for part in parts]


def test_wrong_input_and_settings_are_refused_in_words() -> None:
    model, tokens = model_of(), some_tokens()
    with pytest.raises(ValueError, match=r"expected tokens \(B, T\)"):
        model(tokens[0])
    with pytest.raises(ValueError, match="whole numbers"):
        model(tokens.float())
    with pytest.raises(ValueError, match="tokens lie in 0 .. 10"):
        model(tokens + 1 + V)
    with pytest.raises(ValueError, match="lengths lie in 0 .. 19"):
        model(tokens, None, torch.tensor([1, 2, 20]))
    with pytest.raises(ValueError, match="another model"):
        model(tokens, model_of("delta")(tokens)[1])
    with pytest.raises(TypeError, match="must be a MixerState"):
        model(tokens, model_of(("gru", "softmax"))(tokens)[1])
    with pytest.raises(ValueError, match="one a block"):
        TokenModel(V, 8, [])
    with pytest.raises(ValueError, match="one a block"):
        TokenModel(V, 8, DeltaRule(8))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="dim of the model"):
        TokenModel(V, 8, [SoftmaxAttention(4)])
    with pytest.raises(ValueError, match="name must be one of"):
        named_model("mamba", V)


@pytest.mark.parametrize("name", ["delta", "softmax_nope"])
def test_it_learns_to_look_back(name: str) -> None:
    """The token after a marker comes again at the end: a memory of pairs finds it, whatever lies between."""
    torch.manual_seed(0)
    model = named_model(name, V, 16, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    for _ in range(120):
        tokens = torch.randint(1, V, (32, 10))
        place = torch.randint(0, 7, (32, 1))
        tokens.scatter_(1, place, 0)
        tokens[:, -1] = 0
        answer = tokens.gather(1, place + 1).squeeze(1)
        logits = model(tokens)[0][:, -1]
        optimizer.zero_grad()
        nn.functional.cross_entropy(logits, answer).backward()
        optimizer.step()
    assert (logits.argmax(-1) == answer).double().mean() > 0.9
