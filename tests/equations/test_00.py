"""Both sides of every equation of notebook 00, in float64."""

import math
from fractions import Fraction

import numpy as np
import pytest

from nlcore.levels import Level
from nlcore.timescales import learn_together


@pytest.mark.equation("00.1")
@pytest.mark.parametrize("period", [1, 2, 3, 16, 64, 1000])
def test_frequency_counts_updates_per_step(period: int) -> None:
    steps = period * 12
    updates = sum(step % period == 0 for step in range(1, steps + 1))
    assert np.float64(Level("level", period).frequency) == np.float64(Fraction(updates, steps))
    assert Level("frozen", math.inf).frequency == 0.0
    assert Level("attention", 0).frequency == math.inf


@pytest.mark.equation("00.2")
@pytest.mark.parametrize("seed", range(5))
def test_error_is_signal_less_state(seed: int) -> None:
    signal = np.random.RandomState(seed).randn(50).astype(np.float64)
    lr = 0.3
    state = learn_together(signal, [1], [lr], [0.0])[:, 0]
    error = (state[1:] - state[:-1]) / lr  # what the level was moved by
    np.testing.assert_allclose(error, (signal - state)[:-1], rtol=1e-10, atol=1e-12)


@pytest.mark.equation("00.3")
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("period", [1, 3, 8])
def test_update_of_a_period(seed: int, period: int) -> None:
    random = np.random.RandomState(seed)
    signal = random.randn(40).astype(np.float64)
    lr, decay = random.uniform(0.01, 0.2), random.uniform(0.0, 0.3)
    state = learn_together(signal, [period], [lr], [decay])[:, 0]
    errors = signal - state
    for end in range(period, len(signal), period):
        right = (1 - decay) ** period * state[end - 1] + lr * errors[end - period : end].sum()
        assert state[end] == pytest.approx(right, rel=1e-12, abs=1e-14)
        assert np.ptp(state[end - period : end]) == 0.0  # between two updates the level stays where it is
