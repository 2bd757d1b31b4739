"""Several levels that share one error."""

import numpy as np
import pytest

from nlcore.timescales import learn_together, slow_middle_fast, specialisation, wandering


def test_two_levels_by_hand() -> None:
    states = learn_together([1.0, 1.0, 1.0, 1.0, 1.0], periods=[2, 1], lrs=[0.25, 0.5], decays=[0.0, 0.5])
    slow, fast, summed, expected = 0.0, 0.0, 0.0, []
    for step in range(1, 6):
        expected.append([slow, fast])
        error = 1.0 - slow - fast
        summed += error
        if step % 2 == 0:
            slow, summed = slow + 0.25 * summed, 0.0
        fast = 0.5 * fast + 0.5 * error
    np.testing.assert_allclose(states, expected, rtol=1e-15)


def test_levels_specialise_by_speed() -> None:
    signal, waves = slow_middle_fast()
    states = learn_together(signal, [64, 16, 4, 1], [0.0625, 0.125, 0.25, 0.5], [0.0, 0.0625, 0.125, 0.25])
    match = specialisation(states, waves)
    assert match[0].argmax() == 0 and match[1].argmax() == 1 and match[3].argmax() == 2
    assert match[0, 0] > 0.7 and match[3, 2] > 0.5


def test_divergence_is_said_with_nan_and_follows_nothing() -> None:
    signal, waves = slow_middle_fast(300)
    states = learn_together(signal, [8], [0.9], [0.0])
    assert np.isfinite(states[:8]).all() and np.isnan(states[-1]).all()
    assert (specialisation(states, waves, skip=100) == 0).all()


def test_signal_is_offset_plus_waves_plus_noise() -> None:
    signal, waves = slow_middle_fast(500, noise=0.0, offset=2.0)
    np.testing.assert_allclose(signal, 2.0 + waves.sum(1), rtol=1e-12)
    again, _ = slow_middle_fast(500, seed=0)
    np.testing.assert_array_equal(again, slow_middle_fast(500, seed=0)[0])
    assert not np.array_equal(again, slow_middle_fast(500, seed=1)[0])


@pytest.mark.parametrize(
    ("periods", "lrs", "decays", "words"),
    [
        ([1], [0.1, 0.2], [0.0], "one period, lr and decay"),
        ([], [], [], "one period, lr and decay"),
        ([0], [0.1], [0.0], "whole numbers of steps"),
        ([1.5], [0.1], [0.0], "whole numbers of steps"),
        ([1], [-0.1], [0.0], "finite numbers"),
        ([1], [float("nan")], [0.0], "finite numbers"),
        ([1], [0.1], [1.0], r"decays lie in \[0, 1\)"),
    ],
)
def test_bad_settings_are_named(periods, lrs, decays, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        learn_together([1.0], periods, lrs, decays)


def test_other_bad_input() -> None:
    with pytest.raises(ValueError, match="steps >= 1"):
        slow_middle_fast(0)
    with pytest.raises(ValueError, match="equal lengths"):
        specialisation(np.zeros((10, 1)), np.zeros((10, 1)))


def test_wandering_parts_have_variance_one_and_forget_at_their_own_speed() -> None:
    signal, parts = wandering(200_000, times=(50.0, 5.0), noise=0.5, seed=3)
    np.testing.assert_allclose(parts.var(0), 1.0, rtol=0.1)
    for part, time in zip(parts.T, (50, 5), strict=True):
        later = np.corrcoef(part[:-time], part[time:])[0, 1]
        assert later == pytest.approx(np.exp(-1), abs=0.06)
    assert (signal - parts.sum(1)).std() == pytest.approx(0.5, rel=0.02)
    np.testing.assert_array_equal(wandering(50, seed=1)[0], wandering(50, seed=1)[0])
    assert not np.array_equal(wandering(50, seed=1)[0], wandering(50, seed=2)[0])


@pytest.mark.parametrize(
    ("steps", "times", "noise"), [(0, (1.0,), 0.1), (5, (), 0.1), (5, (0.0,), 0.1), (5, (1.0,), -1.0)]
)
def test_wandering_names_bad_input(steps: int, times: tuple[float, ...], noise: float) -> None:
    with pytest.raises(ValueError, match="expected steps >= 1"):
        wandering(steps, times, noise)
