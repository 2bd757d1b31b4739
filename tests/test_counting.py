"""The small models of notebook 11 that learn parity, and the eigenvalues that are read from them."""

from collections.abc import Iterator

import pytest
import torch

from nlcore.sequence.counting import (
    COUNTERS,
    F64,
    HEADS,
    LENGTHS,
    RATE,
    STEPS,
    bit_eigenvalues,
    counter,
    counts_right,
    generated,
    learn_to_count,
    momentum_eigenvalue,
    words,
)
from nlcore.sweeps import load_sweep

OWN = "self-modifying, C = 1"


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No progress bars, and the number of threads as it was."""
    monkeypatch.setenv("NLCORE_PROGRESS", "0")
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("name", COUNTERS)
def test_every_model_is_new_in_float64_and_repeatable(name: str) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one, two, other = counter(name), counter(name), counter(name, 1)
    assert torch.equal(before, torch.get_rng_state())
    pairs = list(zip(one.state_dict().values(), two.state_dict().values(), strict=True))
    assert all(a.dtype == F64 and torch.equal(a, b) for a, b in pairs)
    assert not torch.equal(one.embedding.weight, other.embedding.weight)
    logits, _ = one(words(torch.Generator().manual_seed(0), 2, 5).tokens)
    assert logits.shape == (2, 5, 2)


def test_no_memory_sees_the_bit_before() -> None:
    """Without a convolution a single bit is all that a layer's gates and keys can depend on."""
    for name in COUNTERS:
        layer = counter(name).blocks[0].mixer
        convolutions = [part for part in layer.modules() if type(part).__name__ == "CausalConvolution"]
        assert all(part.width == 1 for part in convolutions), name


def test_words_have_the_trained_lengths_or_one_length() -> None:
    batch = words(torch.Generator().manual_seed(0), 400)
    assert (int(batch.lengths.min()), int(batch.lengths.max())) == LENGTHS
    assert words(torch.Generator().manual_seed(0), 3, 7).tokens.shape == (3, 7)


def test_an_unknown_model() -> None:
    with pytest.raises(ValueError, match="expected one of 'GRU'.*got 'lstm'"):
        counter("lstm")


def test_training_lowers_the_loss_and_a_count_is_a_part() -> None:
    model, losses = learn_to_count("GRU", steps=60)
    assert len(losses) == 60 and losses[-1] < losses[0]
    assert 0.5 < counts_right(model, 20, count=16) <= 1.0


def test_a_row_of_the_record_comes_out_again() -> None:
    row = load_sweep("counting_to_two")["results"]["GRU"]["0"]
    model, losses = learn_to_count("GRU", 0)
    assert sum(losses[-10:]) / 10 == pytest.approx(row["loss"], abs=0.02)
    assert counts_right(model, 40) == pytest.approx(row["accuracy"]["40"], abs=0.03)


def test_the_record_is_complete() -> None:
    record = load_sweep("counting_to_two")
    assert list(record["results"]) == list(COUNTERS) and record["model"]["steps"] == STEPS
    assert all(len(rates) == 3 and str(RATE) not in rates for rates in record["other rates"].values())
    for name, rows in record["results"].items():
        assert list(rows) == [str(seed) for seed in range(5)], name
        for row in rows.values():
            assert set(row["accuracy"]) == {"20", "40", "80", "160"}
            assert ("real" in row) == (bit_eigenvalues(counter(name)) is not None)


@pytest.mark.parametrize("name", ["delta rule, rate below 2", "Titans"])
def test_the_eigenvalue_of_a_bit_is_what_the_layer_does(name: str) -> None:
    """The gates that the layer would use, by hand: the same sigmoid of the same linear map."""
    model = counter(name, 3)
    layer, x = model.blocks[0].mixer, model.blocks[0].mixer_norm(model.embedding.weight)
    lr = layer.lr_gate.high * torch.sigmoid(layer.lr_gate.linear(x)).T  # (heads, bits)
    if name == "Titans":
        alpha, beta = (torch.sigmoid(gate.linear(x)).T for gate in (layer.retain_gate, layer.momentum_gate))
        expected = momentum_eigenvalue(lr, beta, alpha)
    else:
        expected = (1 - lr).to(torch.complex128)
    torch.testing.assert_close(bit_eigenvalues(model), expected.detach(), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("seed", range(3))
def test_the_momentum_eigenvalue_is_one_of_the_matrix(seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    eta, beta, alpha = torch.rand(3, 50, generator=draw, dtype=F64)
    step = torch.stack([torch.stack([alpha - eta, beta], -1), torch.stack([-eta, beta], -1)], -2)
    found, mine = torch.linalg.eigvals(step), momentum_eigenvalue(eta, beta, alpha)
    assert ((found - mine[:, None]).abs().min(1).values < 1e-7).all()
    assert (mine.imag >= 0).all()
    torch.testing.assert_close(mine.abs(), found.abs().max(1).values, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", [OWN, "literal (NL 93), C = 1"])
def test_the_eigenvalue_of_a_self_modifying_step_is_that_of_its_matrix(name: str) -> None:
    """What one token does to two different memories of the same stream differs by the matrix of the step alone."""
    model = counter(name, 2)
    layer, tokens = model.blocks[0].mixer, torch.tensor([[1, 0, 1]])
    x, state = model.blocks[0].mixer_norm(model.embedding(tokens)), None
    for x_t in x[:, :2].split(1, 1):
        _, state = layer(x_t, state)
    made, last = generated(layer, x[:, 2:], state), x[:, 2:]
    shift = torch.randn(layer.width, generator=torch.Generator().manual_seed(0), dtype=F64)
    S = state.memory.S.clone()
    S[..., -1, :] += shift  # another memory, in its last row: nothing that is generated changes
    moved = state._replace(memory=state.memory._replace(S=S))
    _, one = layer(last, state)
    _, other = layer(last, moved)
    difference = (other.memory.S - one.memory.S)[0, :, -1]  # (H, d): shift times the matrix of the step
    twice = 2 if layer.rules.rule == "dgd_l2" else 1
    for head in range(HEADS):
        k, v, lr = made.k[0, head, 0], made.v[0, head, 0], made.lr[0, head, 0]
        retain = made.log_retain[0, head, 0].exp()
        step = retain * torch.eye(layer.width, dtype=F64) - lr * torch.outer(twice * k - v, k)
        torch.testing.assert_close(difference[head], shift @ step, rtol=1e-9, atol=1e-11)


def test_no_eigenvalue_where_a_bit_is_no_step() -> None:
    assert bit_eigenvalues(counter("GRU")) is None and bit_eigenvalues(counter("self-modifying, C = 2")) is None
    found = bit_eigenvalues(counter(OWN))
    assert found is not None and found.shape == (HEADS, 2) and found.imag.abs().max() == 0
