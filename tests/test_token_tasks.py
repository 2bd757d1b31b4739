"""Token tasks: a solver that knows the rule is always right, chance is what the docstring says, edges and bad input."""

import math
from collections.abc import Callable
from itertools import product

import pytest
import torch
from torch import Tensor

from nlcore.memory import delta, hebbian
from nlcore.tasks.facts import best_memory
from nlcore.tasks.formal import S3, SYMBOLS, formal_language, right_answers, usual_answer_share
from nlcore.tasks.passkey import passkey
from nlcore.tasks.recall import KINDS, capacity, pairs_to_store, recall, store_with
from nlcore.tasks.switching import ABA, best_loss, by_segment, one_switch, switching
from nlcore.tasks.tokens import NOT_ASKED, TokenBatch

DRAWS: dict[str, Callable[[torch.Generator], TokenBatch]] = {
    "recall": lambda g: recall(64, g),
    "overwritten recall": lambda g: recall(64, g, overwrite=True),
    "passkey": lambda g: passkey(64, g),
    "switching": lambda g: switching(64, g),
    "one switch": lambda g: one_switch(64, g),
    **{name: lambda g, name=name: formal_language(name, 64, g) for name in SYMBOLS},  # type: ignore[misc]
}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def score(answers: list[list[int]], batch: TokenBatch) -> float:
    given = torch.tensor(answers)
    return float((given == batch.targets)[batch.asked].double().mean())


@pytest.mark.parametrize("name", DRAWS)
def test_a_seed_gives_the_same_batch_and_touches_no_global_state(name: str) -> None:
    before = torch.random.get_rng_state()
    one, same, other = (DRAWS[name](seeded(seed)) for seed in (3, 3, 4))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(one.tokens, same.tokens) and torch.equal(one.targets, same.targets)
    assert one.tokens.shape != other.tokens.shape or not torch.equal(one.tokens, other.tokens)


@pytest.mark.parametrize("name", DRAWS)
def test_the_fields_fit_and_nothing_is_asked_of_the_padding(name: str) -> None:
    batch = DRAWS[name](seeded())
    T = batch.tokens.shape[1]
    assert len(batch) == 64 and batch.tokens.dtype == batch.targets.dtype == batch.lengths.dtype == torch.int64
    padding = torch.arange(T) >= batch.lengths[:, None]
    assert not batch.asked[padding].any() and not batch.tokens[padding].any()
    assert batch.asked.any(1).all() and batch.targets[batch.asked].min() >= 0
    assert (batch.padding is None) == (not padding.any())
    assert batch.to("cpu").tokens.device.type == "cpu"


def last_pair(row: list[int], symbol: int, before: int) -> int:
    place = max(t for t in range(before) if row[t] == symbol)
    return row[place + 1]


def answer_by_last_pair(batch: TokenBatch) -> list[list[int]]:
    """Look each asked symbol up where it stood last before the questions began."""
    questions = int(batch.asked[0].long().argmax())
    return [
        [last_pair(row, s, questions) if t >= questions else -1 for t, s in enumerate(row)] for row in tolist(batch)
    ]


def tolist(batch: TokenBatch) -> list[list[int]]:
    rows: list[list[int]] = batch.tokens.tolist()
    return rows


@pytest.mark.parametrize(("overwrite", "pairs"), list(product((False, True), (1, 4, 32))))
def test_recall_is_solved_by_looking_up_the_last_value(overwrite: bool, pairs: int) -> None:
    batch = recall(50, seeded(), pairs=(pairs,), overwrite=overwrite)
    assert batch.tokens.shape == (50, pairs * (5 if overwrite else 3))
    assert batch.asked.sum(1).tolist() == [pairs] * 50 and batch.asked[:, -pairs:].all()
    assert score(answer_by_last_pair(batch), batch) == 1.0
    assert batch.tokens.max() < 64 and batch.targets[batch.asked].min() >= 32


def test_recall_draws_the_number_of_pairs_and_all_symbols() -> None:
    generator = seeded()
    widths = [recall(2, generator, pairs=(2, 5)).tokens.shape[1] for _ in range(40)]
    assert set(widths) == {6, 15}
    assert recall(200, generator, pairs=(32,)).tokens.unique().tolist() == list(range(64))


def test_who_knows_only_the_first_value_of_an_overwritten_key_is_never_right() -> None:
    batch = recall(200, seeded(), pairs=(8,), overwrite=True)
    first = [[row[row.index(s) + 1] for s in row] for row in tolist(batch)]
    assert score(first, batch) == 0.0
    once = recall(200, seeded(), pairs=(8,))
    assert score([[row[row.index(s) + 1] if s < 32 else 0 for s in row] for row in tolist(once)], once) == 1.0


def test_chance_of_recall_is_one_in_32() -> None:
    batch = recall(4000, seeded(), pairs=(4,))
    guess = torch.randint(32, 64, batch.tokens.shape, generator=seeded(9))
    assert score(guess.tolist(), batch) == pytest.approx(1 / 32, abs=0.005)
    counts = batch.targets[batch.asked].bincount(minlength=64)[32:].double()
    assert (counts / counts.sum() - 1 / 32).abs().max() < 0.006


def test_the_last_questions_come_in_another_order() -> None:
    batch = recall(300, seeded(), pairs=(8,))
    same_order = batch.tokens[:, 0:16:2] == batch.tokens[:, 16:]
    assert same_order.double().mean() == pytest.approx(1 / 8, abs=0.03)


RULES: dict[str, Callable[[list[int]], int]] = {
    "parity": lambda prefix: prefix.count(1) % 2,
    "mod3": lambda prefix: sum(prefix) % 3,
    "abab": lambda prefix: int(prefix == [0, 1, 0, 1] * (len(prefix) // 4) and len(prefix) % 4 == 0),
    "s3": lambda prefix: S3.index(walk(prefix)),
}


def walk(prefix: list[int]) -> tuple[int, ...]:
    places = [0, 1, 2]
    for number in prefix:
        places = [S3[number][place] for place in places]
    return tuple(places)


@pytest.mark.parametrize("name", SYMBOLS)
def test_a_language_is_solved_by_reading_the_prefix(name: str) -> None:
    batch = formal_language(name, 40, seeded())
    answers = [[RULES[name](row[: t + 1]) for t in range(len(row))] for row in tolist(batch)]
    assert score(answers, batch) == 1.0
    assert batch.asked.sum(1).tolist() == batch.lengths.tolist()


@pytest.mark.parametrize("name", SYMBOLS)
def test_lengths_of_words(name: str) -> None:
    lengths = formal_language(name, 3000, seeded()).lengths
    assert lengths.unique().tolist() == list(range(3, 41))
    assert lengths.double().mean() == pytest.approx(21.5, abs=0.7)
    assert formal_language(name, 2, seeded(), lengths=(1, 1)).tokens.shape == (2, 1)
    exact = formal_language(name, 2, seeded(), lengths=(40, 40))
    assert exact.tokens.shape == (2, 40) and exact.padding is None


@pytest.mark.parametrize(("name", "chance"), [("parity", 1 / 2), ("mod3", 1 / 3), ("s3", 1 / 6)])
def test_chance_of_a_language(name: str, chance: float) -> None:
    batch = formal_language(name, 4000, seeded(), lengths=(40, 40))
    assert usual_answer_share(batch) == pytest.approx(chance, abs=0.01)
    late = batch.targets[:, -1].bincount(minlength=SYMBOLS[name]).double() / 4000
    assert (late - chance).abs().max() < 0.04


def test_most_prefixes_are_no_members_and_half_of_the_words_hold_one_mistake() -> None:
    batch = formal_language("abab", 4000, seeded(), lengths=(40, 40))
    mistakes = (batch.tokens != torch.arange(40) % 2).sum(1)
    assert mistakes.unique().tolist() == [0, 1] and mistakes.double().mean() == pytest.approx(0.5, abs=0.03)
    places = (batch.tokens != torch.arange(40) % 2).double().sum(0)
    assert places.min() > 25 and places.max() < 80  # 2000 mistakes over 40 places
    assert 0.8 < usual_answer_share(batch) < 0.83
    assert batch.targets[mistakes == 0].double().mean() == pytest.approx(0.25)


def test_a_mistake_lies_inside_the_word() -> None:
    batch = formal_language("abab", 2000, seeded(), lengths=(3, 9))
    inside = torch.arange(batch.tokens.shape[1]) < batch.lengths[:, None]
    wrong = ((batch.tokens != torch.arange(batch.tokens.shape[1]) % 2) & inside).any(1)
    assert wrong.double().mean() == pytest.approx(0.5, abs=0.04)


@pytest.mark.parametrize("length", [12, 32, 128, 2048])
def test_needles_are_found_by_looking_them_up(length: int) -> None:
    batch = passkey(20, seeded(), lengths=(length,))
    assert batch.tokens.shape == (20, length) and batch.asked[:, -4:].all() and int(batch.asked.sum()) == 80
    assert score(answer_by_last_pair(batch), batch) == 1.0
    assert batch.tokens.max() < 40


def test_needles_stand_anywhere_and_in_whole() -> None:
    batch = passkey(4000, seeded(), lengths=(32,))
    body = batch.tokens[:, :28]
    marked, held = (body >= 16) & (body < 24), body >= 24
    assert marked.sum(1).unique().tolist() == held.sum(1).unique().tolist() == [4]
    assert torch.equal(marked[:, :-1], held[:, 1:]) and not marked[:, -1].any()
    assert marked[:, :27].double().sum(0).min() > 400  # 16,000 needles over 27 places
    assert (batch.tokens[:, 28:].sort(1).values.diff(dim=1) > 0).all()  # no marker twice


def test_chance_of_the_needles() -> None:
    batch = passkey(3000, seeded(), lengths=(32,))
    assert score(torch.full_like(batch.tokens, 30).tolist(), batch) == pytest.approx(1 / 16, abs=0.01)
    asked = batch.targets[:, -4:]
    one_of_four = asked.gather(1, torch.rand(3000, 4, generator=seeded(1)).argsort(-1))
    repeats = 1 / 4 + 3 / 4 / 16
    assert float((one_of_four == asked).double().mean()) == pytest.approx(repeats, abs=0.015)


def test_a_stream_follows_its_rules_and_returns_to_the_first() -> None:
    batch = switching(30, seeded(), follow=1.0)
    assert torch.equal(batch.tokens[:, 1:], batch.targets[:, :-1]) and batch.tokens.shape == (30, 288)
    for row, nexts in zip(tolist(batch), batch.targets.tolist(), strict=True):
        maps: list[dict[int, int]] = [{}, {}, {}]
        for t, (x, y) in enumerate(zip(row, nexts, strict=True)):
            assert maps[t // 96].setdefault(x, y) == y  # one answer for each symbol within a segment
        assert all(maps[0].get(x, y) == y for x, y in maps[2].items())
    assert not torch.equal(batch.targets[:, 90:96], batch.targets[:, 96:102])


def test_the_best_loss_is_reached_by_who_knows_f() -> None:
    batch = switching(400, seeded(), segments=[("A", 200)])
    counts = torch.zeros(400, 16, 16)
    counts.view(400, 256).scatter_add_(1, batch.tokens * 16 + batch.targets, torch.ones(400, 200))
    f = counts.argmax(-1)
    right = f.gather(1, batch.tokens) == batch.targets
    nats = torch.where(right, -math.log(0.8125), -math.log(0.0125))
    assert nats.double().mean() == pytest.approx(best_loss(), abs=0.03)
    assert best_loss() == pytest.approx(0.99, abs=0.005) and best_loss(follow=0.0) == pytest.approx(math.log(16))
    assert best_loss(follow=1.0) == 0.0


def test_the_switch_for_training_wanders_in_the_middle_half() -> None:
    assert one_switch(2, seeded()).tokens.shape == (2, 160) and one_switch(1, seeded(), length=4).tokens.shape == (1, 4)
    generator, found = seeded(), []
    for _ in range(40):
        state = generator.get_state()
        found.append(int(torch.randint(40, 121, (), generator=generator)))
        generator.set_state(state)
        one_switch(1, generator)
    assert min(found) < 60 and max(found) > 100


def test_losses_are_cut_at_the_switches() -> None:
    nats = torch.cat([torch.full((96,), 1.0), torch.linspace(3, 2, 96), torch.full((96,), 5.0)])
    first, second, third = by_segment(nats)
    assert first == (1.0, 1.0) and third == (5.0, 5.0)
    assert second.start == pytest.approx(float(nats[96:104].mean()))
    assert second.end == pytest.approx(float(nats[160:192].mean()))
    assert by_segment(torch.tensor([1.0, 3.0]), [("A", 2)]) == [(2.0, 2.0)]
    with pytest.raises(ValueError, match="each of 288 positions"):
        by_segment(torch.ones(287), ABA)


def test_what_a_matrix_holds_without_training() -> None:
    """The order that the rules have: adding is best for pairs written once, correcting for keys rewritten or alike."""
    add, correct = store_with(hebbian), store_with(delta, 0.5)
    assert mean(add, "random", 64) > mean(correct, "random", 64) > mean(store_with(delta), "random", 64)
    assert mean(correct, "overwritten", 16) > 0.9 > 0.6 > mean(add, "overwritten", 16)
    assert mean(correct, "correlated", 32) > mean(add, "correlated", 32)
    for kind in ("random", "correlated"):
        assert mean(best_memory, kind, 32) == 1.0
    assert capacity(store_with(delta), "random", 1).cosine.min() == pytest.approx(1.0)


def mean(store: Callable[[Tensor, Tensor], Tensor], kind: str, count: int) -> float:
    return float(capacity(store, kind, count).accuracy.mean())


@pytest.mark.parametrize("kind", KINDS)
def test_pairs_to_store(kind: str) -> None:
    keys, values, facts = pairs_to_store(kind, 6, dim=8, codes=3, seeds=(1, 2))
    assert keys.shape == values.shape == (2, 12 if kind == "overwritten" else 6, 8) and len(facts) == 6
    torch.testing.assert_close(keys.norm(dim=-1), torch.ones_like(keys[..., 0]))
    assert torch.equal(keys[:, -6:], facts.keys) and torch.equal(values[:, -6:], facts.values)
    if kind == "overwritten":
        assert torch.equal(keys[:, :6], keys[:, 6:]) and not (values[:, :6] == values[:, 6:]).all(-1).any()
    alike = (facts.keys @ facts.keys.mT).mean()
    assert (alike > 0.4) == (kind == "correlated")
    result = capacity(store_with(), kind, 6, seeds=(1, 2, 3))
    assert result.accuracy.shape == result.cosine.shape == (3,)


def test_chance_of_the_capacity_is_one_in_the_number_of_codes() -> None:
    nothing = capacity(lambda k, v: torch.zeros(len(k), 32, 32, dtype=k.dtype), "random", 400, codes=4, seeds=range(20))
    assert nothing.accuracy.mean() == pytest.approx(1 / 4, abs=0.03)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda g: recall(0, g), "at least one sequence, got batch_size=0"),
        (lambda g: recall(2, g, pairs=()), "1 to keys=32 pairs"),
        (lambda g: recall(2, g, pairs=(0, 4)), "1 to keys=32 pairs"),
        (lambda g: recall(2, g, pairs=(33,)), "1 to keys=32 pairs"),
        (lambda g: recall(2, g, overwrite=True, values=1), "at least 2 values"),
        (lambda g: formal_language("anbn", 2, g), "one of the languages parity, mod3, abab, s3; got 'anbn'"),
        (lambda g: formal_language("parity", 2, g, lengths=(0, 3)), "1 <= shortest <= longest"),
        (lambda g: formal_language("parity", 2, g, lengths=(4, 3)), "1 <= shortest <= longest"),
        (lambda g: right_answers("parity", torch.tensor([[0, 2]])), "symbols 0 to 1"),
        (lambda g: right_answers("s3", torch.tensor([0, 2])), r"\(B, T\)"),
        (lambda g: passkey(2, g, needles=9), "1 to 8 needles"),
        (lambda g: passkey(2, g, lengths=(11,)), "at least 3 tokens a needle"),
        (lambda g: passkey(2, g, lengths=()), "at least 3 tokens a needle"),
        (lambda g: switching(2, g, segments=[]), "expected segments"),
        (lambda g: switching(2, g, segments=[("A", 0)]), "expected segments"),
        (lambda g: switching(2, g, follow=1.1), "follow in"),
        (lambda g: switching(2, g, symbols=1), "symbols >= 2"),
        (lambda g: one_switch(2, g, length=3), "at least 4 tokens, got 3"),
        (lambda g: pairs_to_store("twice", 4), "one of random, overwritten, correlated; got 'twice'"),
        (lambda g: pairs_to_store("overwritten", 4, codes=1), "at least 2 codes"),
        (lambda g: TokenBatch(torch.zeros(2, 3), torch.zeros(2, 4), torch.zeros(2)), r"got \(2, 3\), \(2, 4\), \(2,\)"),
        (lambda g: TokenBatch(torch.zeros(2, 3), torch.zeros(2, 3), torch.zeros(3)), r"lengths \(B,\)"),
    ],
)
def test_bad_input_is_named(call: Callable[[torch.Generator], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(seeded())


@pytest.mark.parametrize("task", [recall, passkey, switching, one_switch])
def test_a_seed_is_not_a_generator(task: Callable[..., TokenBatch]) -> None:
    with pytest.raises(TypeError, match="try torch.Generator"):
        task(2, 0)


def test_the_answers_to_a_word_of_no_letter() -> None:
    empty = torch.zeros(2, 0, dtype=torch.int64)
    for name in SYMBOLS:
        assert right_answers(name, empty).shape == (2, 0)
    assert TokenBatch(empty, empty, torch.zeros(2, dtype=torch.int64)).padding is None
    assert NOT_ASKED == -100
