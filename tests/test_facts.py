"""The amnesia experiment: its facts, its memories, its window, and what it finds."""

import pytest
import torch
from torch import Tensor

from nlcore.memory import delta, hebbian
from nlcore.tasks.facts import (
    Facts,
    amnesia,
    answers,
    best_memory,
    by_delay,
    exam,
    fast_weights,
    linked_pairs,
    random_facts,
    recalled,
    relative_error,
)

D = torch.float64


def world(count: int = 184, seeds: range = range(3)) -> tuple[Facts, Facts]:
    facts = random_facts(count, seeds=seeds, dtype=D)
    return facts[:24], facts[24:]


# ---- facts


def test_facts_have_unit_keys_and_their_code_as_value() -> None:
    facts = random_facts(10, dim=6, codes=5, seeds=range(4), dtype=D)
    assert facts.keys.shape == (4, 10, 6) and facts.codes.shape == (4, 5, 6) and len(facts) == 10
    torch.testing.assert_close(facts.keys.norm(dim=-1), torch.ones(4, 10, dtype=D))
    torch.testing.assert_close(facts.codes.norm(dim=-1), torch.ones(4, 5, dtype=D))
    for s in range(4):
        for n in range(10):
            assert torch.equal(facts.values[s, n], facts.codes[s, facts.labels[s, n]])


def test_a_world_depends_on_its_seed_only() -> None:
    several, alone = random_facts(5, seeds=[3, 7]), random_facts(5, seeds=[7])
    assert torch.equal(several.keys[1:], alone.keys) and torch.equal(several.labels[1:], alone.labels)
    assert not torch.equal(several.keys[0], several.keys[1])


def test_facts_are_cut_with_slices() -> None:
    facts = random_facts(10, seeds=range(2))
    assert len(facts[2:5]) == 3 and torch.equal(facts[2:5].keys, facts.keys[:, 2:5])
    assert torch.equal(facts[2:5].values, facts.values[:, 2:5])
    with pytest.raises(TypeError, match="slice"):
        facts[3]  # type: ignore[index]


@pytest.mark.parametrize("bad", [{"count": 0}, {"dim": 0}, {"codes": 0}, {"seeds": []}])
def test_facts_refuse_empty_sizes(bad: dict) -> None:
    with pytest.raises(ValueError, match="at least 1|no seed"):
        random_facts(**{"count": 3, **bad})


def test_a_single_seed_is_refused_with_advice() -> None:
    with pytest.raises(TypeError, match=r"range\(20\)"):
        random_facts(3, seeds=20)  # type: ignore[arg-type]


# ---- memories


def test_the_best_memory_is_exact_while_there_is_room() -> None:
    old, _ = world()
    memory = best_memory(old.keys, old.values)
    torch.testing.assert_close(old.keys @ memory.mT, old.values, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("write", [hebbian, delta])
@pytest.mark.parametrize("share_error", [True, False])
def test_worlds_side_by_side_equal_one_world_at_a_time(write, share_error: bool) -> None:
    old, new = world(60)
    slow = best_memory(old.keys, old.values)
    together = fast_weights(slow, new.keys, new.values, write, 0.7, 0.9, share_error)
    for s in range(3):
        F = torch.zeros(64, 64, dtype=D)
        for k, v in zip(new.keys[s], new.values[s], strict=True):
            target = v - slow[s] @ k if share_error else v
            F = 0.9 * F + 0.7 * torch.outer(target - (F @ k if write is delta else 0), k)
        torch.testing.assert_close(together[s], F, rtol=1e-10, atol=1e-12)


def test_fast_weights_leave_the_slow_ones_alone() -> None:
    old, new = world()
    slow = best_memory(old.keys, old.values)
    before = slow.clone()
    fast_weights(slow, new.keys, new.values)
    assert torch.equal(slow, before)


def test_without_strength_nothing_is_written() -> None:
    old, new = world()
    slow = best_memory(old.keys, old.values)
    assert not fast_weights(slow, new.keys, new.values, lr=0.0).any()


def test_pairs_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="expected keys"):
        best_memory(torch.zeros(3, 4), torch.zeros(2, 4))
    with pytest.raises(ValueError, match="expected keys"):
        fast_weights(torch.zeros(4, 4), torch.zeros(4), torch.zeros(4))


# ---- asking


def test_what_stands_in_the_window_is_answered_word_for_word() -> None:
    _, new = world()
    nothing = torch.zeros(3, 64, 64, dtype=D)
    answered = answers(nothing, new.keys, new[-16:])
    assert torch.equal(answered[:, -16:], new.values[:, -16:])
    assert not answered[:, :-16].any()
    assert not answers(nothing, new.keys).any()


def test_the_newest_entry_of_the_window_counts() -> None:
    key = torch.tensor([[[1.0, 0.0], [1.0, 0.0]]], dtype=D)
    codes = torch.eye(2, dtype=D)[None]
    window = Facts(key, torch.tensor([[0, 1]]), codes)
    assert torch.equal(answers(torch.zeros(1, 2, 2, dtype=D), key[:, :1], window)[0, 0], codes[0, 1])


def test_recalled_takes_the_nearest_code() -> None:
    facts = random_facts(50, dim=8, codes=8, seeds=range(2), dtype=D)
    noisy = facts.values + 0.3 * torch.randn(facts.values.shape, dtype=D, generator=torch.Generator().manual_seed(0))
    nearest = torch.cdist(noisy, facts.codes).argmin(-1)
    assert torch.equal(recalled(noisy, facts), nearest == facts.labels)
    assert recalled(facts.values, facts).all()


def test_by_delay_counts_from_the_newest() -> None:
    right = torch.tensor([[True, True, False, False, False]])
    assert by_delay(right, (0, 1, 3)).tolist() == [[0.0, 0.0, 1.0]]
    assert by_delay(right, (0, 2)).tolist() == [[0.0, pytest.approx(2 / 3)]]


@pytest.mark.parametrize("edges", [(), (1, 2), (0, 2, 2), (0, 5), (0, 3, 2)])
def test_by_delay_refuses_edges_that_make_no_bins(edges: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="edges"):
        by_delay(torch.ones(1, 5, dtype=torch.bool), edges)


@pytest.mark.parametrize("window", [-1, 161])
def test_the_window_must_fit_the_stream(window: int) -> None:
    old, new = world()
    with pytest.raises(ValueError, match="window holds 0 to 160"):
        amnesia(old, new, window=window)


@pytest.mark.parametrize("window", [0, 16, 160])
def test_the_window_is_the_only_memory_of_a_frozen_model(window: int) -> None:
    old, new = world()
    slow = best_memory(old.keys, old.values)
    outcome = exam(slow, old, new, window, edges=range(0, 160, 16))
    assert outcome.by_delay.shape == (3, 10)
    assert (outcome.by_delay[:, : window // 16] == 1).all()
    assert (outcome.by_delay[:, window // 16 :] < 0.3).all()
    assert (outcome.old == 1).all()


# ---- what the experiment finds


def mean(part: Tensor) -> float:
    return part.mean().item()


def test_recall_and_old_facts_come_out_as_the_course_says() -> None:
    old, new = world(seeds=range(100, 108))  # not the seeds of the notebook
    frozen, full = amnesia(old, new, lr=0.0), amnesia(old, new)
    fading, hebb = amnesia(old, new, retain=0.98), amnesia(old, new, hebbian, share_error=False)
    assert mean(frozen.by_delay[:, 1:]) < 0.06 and mean(frozen.old) == 1
    assert mean(full.by_delay[:, 1]) > 0.9 and mean(full.old) < 0.15
    assert mean(fading.by_delay[:, 1]) > 0.7 and mean(fading.old) > 0.9
    assert mean(hebb.by_delay[:, 4]) > 0.6 and mean(hebb.old) > 0.7


def test_the_order_of_the_facts_does_not_matter_to_hebb() -> None:
    old, new = world()
    slow = best_memory(old.keys, old.values)
    forward = fast_weights(slow, new.keys, new.values, hebbian, share_error=False)
    backward = fast_weights(slow, new.keys.flip(1), new.values.flip(1), hebbian, share_error=False)
    torch.testing.assert_close(forward, backward, rtol=1e-10, atol=1e-12)


# ---- memory against learning


@pytest.mark.parametrize("rule", [True, False])
def test_linked_pairs_follow_one_matrix_only_where_there_is_a_rule(rule: bool) -> None:
    keys, values = linked_pairs(100, rule=rule, dim=8, seeds=range(3), dtype=D)
    assert keys.shape == values.shape == (3, 100, 8)
    torch.testing.assert_close(keys.norm(dim=-1), torch.ones(3, 100, dtype=D))
    left = relative_error(best_memory(keys, values), keys, values)
    assert (left < 1e-20).all() if rule else (left > 0.5).all()


def test_only_a_rule_carries_over_to_unseen_keys() -> None:
    unseen = {}
    for rule in (True, False):
        keys, values = linked_pairs(328, rule=rule, seeds=range(100, 105), dtype=D)
        M = fast_weights(torch.zeros(5, 32, 32, dtype=D), keys[:, :128], values[:, :128])
        unseen[rule] = mean(relative_error(M, keys[:, 128:], values[:, 128:]))
    assert unseen[True] < 0.05 and unseen[False] > 1.7
