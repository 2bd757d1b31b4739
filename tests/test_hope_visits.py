"""Visits A | B | A: the streams, the switches, and what reading them with every choice of levels returns."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from nlcore.hope import HopeConfig, HopeLM
from nlcore.hope.visits import bits, by_level, every_way, rule_visits, spelled, switches
from nlcore.hope.watching import there_and_back, watch
from nlcore.tasks.characters import Bytes, Characters
from nlcore.tasks.languages import language

LENGTH, PIECE = 24, 8
ENGLISH = Characters(language("en").whole)


def draw(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def model(**changes: object) -> HopeLM:
    torch.manual_seed(0)
    settings = {"dim": 8, "blocks": 2, "chunk": 4, "periods": (4, 8, 16), **changes}
    return HopeLM(HopeConfig(16, **settings), dtype=torch.float64)  # type: ignore[arg-type]


def stream(count: int = 3) -> Tensor:
    return rule_visits(LENGTH, count, draw())


def test_a_visit_of_rules_has_three_parts_and_the_first_rule_returns() -> None:
    tokens = rule_visits(400, 1, draw())
    assert tokens.shape == (1, 1201)
    tables = []
    for part in tokens[0, :-1].split(400):
        followers = [part[1:][part[:-1] == symbol] for symbol in range(16)]
        tables.append(torch.stack([one.mode().values for one in followers]))
    assert torch.equal(tables[0], tables[2])
    assert not torch.equal(tables[0], tables[1])


def test_two_texts_go_there_and_back() -> None:
    a, b = ENGLISH.encode("abcdefgh"), ENGLISH.encode("pqr")
    assert ENGLISH.decode(there_and_back(a, b, 3, 1, draw())[0]).replace("pqr", "|") in ("abc|defg", "bcd|efgh")
    with pytest.raises(ValueError, match=r"text B needs at least 4 tokens for parts of 4, got 3"):
        there_and_back(ENGLISH.encode("x" * 9), b, 4, 1, draw())


def test_spelling_takes_accents_off_and_leaves_out_what_is_unknown() -> None:
    assert ENGLISH.decode(spelled("Freiheit", ENGLISH)) == "Freiheit"
    told = "Sie müssen groß sein, déjà vu; niemand darf sie stören."
    assert ENGLISH.decode(spelled(told, ENGLISH)) == "Sie mussen gross sein, deja vu; niemand darf sie storen."
    assert ENGLISH.decode(spelled("a" * 30 + "€", ENGLISH)) == "a" * 30
    assert Bytes().decode(spelled(told, Bytes())) == told


def test_a_text_in_another_alphabet_is_refused() -> None:
    with pytest.raises(ValueError, match=r"lacks \d+ of the \d+ characters .* 'Всеобщая.*try a text in an alphabet"):
        spelled(language("ru").whole, ENGLISH)


def test_switches_name_all_levels_once() -> None:
    found = switches(model())
    assert found == {"titans": ("memory", "lr retain k v"), "fast": ("cms 1",), "slow": ("cms 2", "cms 3")}
    assert list(switches(model(periods=(4,)))) == ["titans", "fast"]
    assert list(switches(model(learns="never"))) == ["titans"]
    assert list(switches(model(mixer="attention"))) == ["fast", "slow"]


def test_every_way_reads_with_exactly_the_chosen_levels() -> None:
    lm, tokens = model(), stream()
    ways = every_way(lm, tokens, PIECE)
    assert len(ways) == 8
    for choice, seen in ways.items():
        moves = {level: bool(moved.any()) for level, moved in by_level(seen).items()}
        expected = dict(
            zip(("memory", "boxes", "cms 1", "cms 2", "cms 3"), [choice[i] for i in (0, 0, 1, 2, 2)], strict=True)
        )
        assert moves == expected
    assert torch.equal(ways[True, True, True].nats, watch(lm, tokens, PIECE).nats)
    assert torch.equal(ways[False, False, False].nats, watch(lm, tokens, PIECE, frozen=("all",)).nats)
    assert not torch.equal(ways[True, False, False].nats, ways[False, False, True].nats)


def test_movement_is_the_mean_over_blocks() -> None:
    seen = watch(model(), stream(), PIECE)
    both = torch.stack([seen.moved[f"block {number}: cms 2"] for number in (1, 2)])
    assert torch.equal(by_level(seen)["cms 2"], both.mean(0))


def test_bits_by_stretch() -> None:
    seen = watch(model(), stream(), PIECE)
    found = bits(seen, 4)
    assert found.shape == (3, 4)
    torch.testing.assert_close(found[1, 0], seen.nats[LENGTH : LENGTH + 6].mean() / math.log(2))
    with pytest.raises(ValueError, match="a visit of 72 tokens has no 3 parts of 7 equal stretches"):
        bits(seen, 7)


def test_a_visit_needs_a_length() -> None:
    with pytest.raises(ValueError, match="length must be at least 1, got 0"):
        rule_visits(0, 1, draw())
