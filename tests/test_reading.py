"""Bits by position, streams in pieces, and learning at test time: each against a plain computation."""

import copy
import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from nlcore.hope import HopeConfig, HopeLM
from nlcore.hope.evaluation import (
    bits_by_position,
    by_stretch,
    dynamic_evaluation,
    read_stream,
    tuned_dynamic_evaluation,
)
from nlcore.sequence import DeltaRule, SoftmaxAttention, TokenModel

TOKENS = torch.randint(6, (41,), generator=torch.Generator().manual_seed(2))


def model(kind: str = "delta") -> TokenModel:
    torch.manual_seed(1)
    if kind == "hope":
        return HopeLM(HopeConfig(6, dim=8, blocks=1, heads=1, chunk=4, periods=(2, 4)), dtype=torch.float64)
    mixer = DeltaRule(8, chunk_size=4) if kind == "delta" else SoftmaxAttention(8)
    return TokenModel(6, 8, [mixer], dtype=torch.float64)


def plain(one: nn.Module, tokens: Tensor) -> Tensor:
    """Return the bits of all tokens but the first, read in one go."""
    with torch.no_grad():
        logits = one(tokens[None, :-1])[0][0]
    return cross_entropy(logits, tokens[1:], reduction="none") / math.log(2)


@pytest.mark.parametrize("kind", ["delta", "softmax", "hope"])
def test_pieces_with_a_carried_state_are_the_whole(kind: str) -> None:
    one = model(kind)
    whole = plain(one, TOKENS)
    for piece in (1, 7, 40, 99):
        torch.testing.assert_close(read_stream(one, TOKENS, piece=piece).bits, whole, rtol=0, atol=1e-9)
    first = read_stream(one, TOKENS[:15])
    second = read_stream(one, TOKENS[14:], state=first.state)  # begins at the token the state has not seen
    torch.testing.assert_close(torch.cat([first.bits, second.bits]), whole, rtol=0, atol=1e-9)


def test_without_a_past_each_piece_is_a_stream_of_its_own() -> None:
    one = model()
    alone = [plain(one, TOKENS[begin : begin + 9]) for begin in range(0, 40, 8)]
    found = read_stream(one, TOKENS, piece=8, context=0)
    torch.testing.assert_close(found.bits, torch.cat(alone))
    assert found.state is None


def test_a_context_is_read_anew_and_not_scored() -> None:
    one = model("softmax")
    expected = [plain(one, TOKENS[max(0, b - 5) : b + 5])[-4:] for b in range(0, 40, 4)]
    torch.testing.assert_close(read_stream(one, TOKENS, piece=4, context=5).bits, torch.cat(expected))
    everything = read_stream(one, TOKENS, piece=4, context=99).bits
    torch.testing.assert_close(everything, plain(one, TOKENS))


def test_bits_by_position_are_means_over_streams_that_begin_anew() -> None:
    one = model()
    rows = torch.stack([plain(one, TOKENS[begin : begin + 13]) for begin in (0, 12, 24)])
    for settings in ({}, {"rows": 2, "piece": 5}, {"rows": 1, "piece": 12}):
        found = bits_by_position(one, TOKENS, 12, **settings)
        torch.testing.assert_close(found, rows.mean(0))
    assert found.dtype == torch.float64 and bits_by_position(one, TOKENS, 40).shape == (40,)
    with pytest.raises(ValueError, match="at least length"):
        bits_by_position(one, TOKENS, 41)


def test_levels_can_be_held_while_a_stream_is_read() -> None:
    one = model("hope")
    with torch.no_grad():
        logits = one(TOKENS[None, :-1], frozen=("all",))[0][0]
    held = cross_entropy(logits, TOKENS[1:], reduction="none") / math.log(2)
    torch.testing.assert_close(read_stream(one, TOKENS, piece=7, frozen=("all",)).bits, held, rtol=0, atol=1e-9)
    torch.testing.assert_close(bits_by_position(one, TOKENS, 40, piece=7, frozen=("all",)), held, rtol=0, atol=1e-9)
    torch.testing.assert_close(dynamic_evaluation(one, TOKENS, 0.0, frozen="all").bits, held, rtol=0, atol=1e-9)
    assert not torch.allclose(held, plain(one, TOKENS))


# ---- learning at test time


def by_hand(one: TokenModel, tokens: Tensor, lr: float, piece: int, decay: float = 0.0) -> Tensor:
    """Return dynamic evaluation without a carried state, written out."""
    pupil, start, bits = copy.deepcopy(one), [w.detach().clone() for w in one.parameters()], []
    for begin in range(0, len(tokens) - 1, piece):
        part = tokens[begin : begin + piece + 1]
        nats = cross_entropy(pupil(part[None, :-1])[0][0], part[1:], reduction="none")
        bits.append(nats.detach() / math.log(2))
        grads = torch.autograd.grad(nats.mean(), list(pupil.parameters()))
        for weight, grad, first in zip(pupil.parameters(), grads, start, strict=True):
            weight.data -= lr * grad
            weight.data += decay * (first - weight.data)
    return torch.cat(bits)


@pytest.mark.parametrize("decay", [0.0, 0.25])
def test_dynamic_evaluation_predicts_then_learns(decay: float) -> None:
    one = model()
    found = dynamic_evaluation(one, TOKENS, 0.3, piece=6, context=0, decay=decay).bits
    torch.testing.assert_close(found, by_hand(one, TOKENS, 0.3, 6, decay))
    assert (found[:6] - read_stream(one, TOKENS, piece=6, context=0).bits[:6]).abs().max() < 1e-12


@pytest.mark.parametrize("kind", ["delta", "softmax", "hope"])
def test_it_learns_a_stream_that_repeats_itself_and_leaves_the_model_alone(kind: str) -> None:
    one, stream = model(kind).train(), torch.tensor([0, 1, 2, 3, 4, 5] * 20)
    one.blocks[0].eval()
    before, random = copy.deepcopy(one.state_dict()), torch.get_rng_state()
    lr = 0.1 if kind == "hope" else 0.5
    still, learned = read_stream(one, stream).bits, dynamic_evaluation(one, stream, lr, piece=6).bits
    assert learned[-30:].mean() < 0.8 * still[-30:].mean()
    torch.testing.assert_close(dynamic_evaluation(one, stream, 0.0, piece=6).bits, still)
    assert all(torch.equal(value, before[name]) for name, value in one.state_dict().items())
    assert all(w.grad is None and w.requires_grad for w in one.parameters())
    assert one.training and one.head.training and not one.blocks[0].training
    assert torch.get_rng_state().equal(random)


def test_a_frozen_model_can_be_evaluated_dynamically() -> None:
    one = model().requires_grad_(False)
    with torch.no_grad():
        learned = dynamic_evaluation(one, TOKENS, 0.3, piece=6, context=0).bits
    torch.testing.assert_close(learned, by_hand(model(), TOKENS, 0.3, 6))
    assert not any(w.requires_grad for w in one.parameters())


def test_the_rate_is_chosen_on_one_stretch_and_measured_on_another() -> None:
    one, tuning, stream = model(), torch.tensor([0, 1, 2] * 20), torch.tensor([3, 4, 5] * 20)
    found = tuned_dynamic_evaluation(one, tuning, stream, (0.4, 0.01, 0.1), piece=6, context=0)
    assert list(found.tuning) == [0.0, 0.01, 0.1, 0.4] and found.lr == min(found.tuning, key=found.tuning.__getitem__)
    for lr, mean in found.tuning.items():
        assert mean == pytest.approx(float(by_hand(one, tuning, lr, 6).mean()))
    torch.testing.assert_close(found.bits, by_hand(one, stream, found.lr, 6))
    assert found.lr == 0.4 and found.at_edge
    assert not tuned_dynamic_evaluation(one, tuning, stream, (0.01, 0.4, 1e9), piece=6, context=0).at_edge


def test_a_rate_that_diverges_is_infinite_and_not_chosen() -> None:
    one = model()
    bits = dynamic_evaluation(one, TOKENS, 1e200, piece=6).bits
    assert bits[:6].isfinite().all() and bits[-1] == math.inf
    found = tuned_dynamic_evaluation(one, TOKENS, TOKENS, (1e200,), piece=6)
    assert found.lr == 0.0 and found.tuning[1e200] == math.inf and found.bits.isfinite().all()


def test_another_optimizer_can_learn() -> None:
    bits = dynamic_evaluation(model(), TOKENS, 0.01, optimizer=torch.optim.Adam, piece=6).bits
    assert bits.isfinite().all() and not torch.allclose(bits, read_stream(model(), TOKENS).bits)


# ---- curves, and input that does not fit


def test_bits_become_bits_per_character_of_stretches() -> None:
    bits, begins = torch.tensor([1.0, 3, 2, 2, 5]), torch.tensor([True, False, True, True, True])
    assert by_stretch(bits, 2).tolist() == [2, 2, 5]
    assert by_stretch(bits, 2, begins).tolist() == [4, 2, 5]
    with pytest.raises(ValueError, match="expected bits and begins"):
        by_stretch(bits, 2, begins[1:])


def test_input_that_does_not_fit_is_named() -> None:
    one = model()
    for tokens in (TOKENS[:1], TOKENS[None]):
        with pytest.raises(ValueError, match="one stream of at least 2 tokens"):
            read_stream(one, tokens)
    with pytest.raises(ValueError, match=r"got str; try vocabulary.encode\(text\)"):
        read_stream(one, "a text")  # type: ignore[arg-type]
    state = read_stream(one, TOKENS).state
    for settings in ({"context": -1}, {"context": 3, "state": state}):
        with pytest.raises(ValueError, match="context is None"):
            read_stream(one, TOKENS, **settings)
    with pytest.raises(ValueError, match="piece must be at least 1"):
        read_stream(one, TOKENS, piece=0)
    for lr, decay in ((-1.0, 0.0), (math.nan, 0.0), (0.1, 1.5)):
        with pytest.raises(ValueError, match="a rate >= 0 and a decay"):
            dynamic_evaluation(one, TOKENS, lr, decay=decay)
    for rates in ((), (0.0, 0.1)):
        with pytest.raises(ValueError, match="rates above 0"):
            tuned_dynamic_evaluation(one, TOKENS, TOKENS, rates)
