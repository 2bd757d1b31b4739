"""Streams with contexts inside contexts: where they begin, what they are made of, and the best possible error."""

import pytest
import torch

from nlcore.tasks.contexts import BOUNDARIES, FEATURES, best_possible, streams


def test_shapes_and_repeatable_draws() -> None:
    given = streams([1, 2], number=3, steps=40)
    assert given.x.shape == (2, 3, 40, 4) and given.y.shape == (2, 3, 40, 2) and given.x.dtype == torch.float32
    assert given.parts.shape == (2, 3, 40, 3, 2) and given.begins.shape == (2, 3, 40, 2)
    assert torch.equal(given.y, streams([1, 2], number=3, steps=40).y)
    assert torch.equal(given.y[1], streams([2], number=3, steps=40).y[0])
    other = streams([1, 2], number=3, steps=40, draw=1)
    assert torch.equal(given.features, other.features) and not torch.equal(given.y, other.y)
    assert not torch.equal(given.features[0], given.features[1])


def test_parts_add_up_and_the_slow_part_is_the_slow_part() -> None:
    given = streams([1], noise=0.0, dtype=torch.float64)
    torch.testing.assert_close(given.parts.sum(-2), given.y)
    torch.testing.assert_close(given.slow_part(given.x), given.parts[..., 0, :])
    spread = (streams([1], noise=0.5, number=50).y - streams([1], noise=0.0, number=50).y).std()
    assert abs(spread - 0.5) < 0.01


def test_where_contexts_begin() -> None:
    aligned = streams([1], number=2).begins[0, 0]
    assert aligned[:, 0].nonzero().flatten().tolist() == [0, 32, 64, 96]
    assert aligned[:, 1].nonzero().flatten().tolist() == list(range(0, 128, 8))
    phase = streams([1], "phase", number=50).begins[0]
    for begins in phase:
        middle = begins[:, 0].nonzero().flatten()[1:]
        assert (middle.diff() == 32).all() and (begins[:, 1].nonzero().flatten()[1:].diff() == 8).all()
    assert len(phase[..., 0].int().argsort(stable=True).unique(dim=0)) > 10
    random = streams([1], "random", number=100, steps=200).begins[0, :, 1:].float().mean((0, 1))
    torch.testing.assert_close(random, torch.tensor([1 / 32, 1 / 8]), rtol=0.1, atol=0.0)


@pytest.mark.parametrize("boundaries", BOUNDARIES)
def test_a_read_out_stays_within_its_context(boundaries: str) -> None:
    given = streams([4], boundaries, noise=0.0, dtype=torch.float64)
    phi = (given.x @ given.features[:, None].mT).tanh().split(FEATURES, -1)
    for part in (1, 2):
        begins = given.begins[0, 0, :, part - 1]
        for context in begins.cumsum(0).unique():
            rows = begins.cumsum(0) == context
            x, y = phi[part][0, 0, rows], given.parts[0, 0, rows, part]
            torch.testing.assert_close(x @ torch.linalg.lstsq(x, y, driver="gelsd").solution, y, rtol=0, atol=1e-8)


def test_the_best_possible_error() -> None:
    given = streams(range(4), number=32, dtype=torch.float64)
    error = best_possible(given).mean((0, 1))
    zero = given.y.square().sum(-1).mean()
    assert 3.0 < zero < 4.5 and abs(error[0] - zero) < 1.0  # nothing is known yet
    assert 2 * 0.09 < error.mean() < 0.3 * zero
    assert error[31] < error[32] and error[-32:].mean() < error[:32].mean()
    alone = best_possible(streams([1], number=8, steps=16, noise=1e-3, dtype=torch.float64))
    assert alone.isfinite().all()


def test_the_best_possible_belief_is_the_exact_posterior() -> None:
    given = streams([5], number=1, steps=20, dtype=torch.float64)
    phi = (given.x[0, 0] @ given.features[0].T).tanh()
    # At step 7 no context has begun anew: regularised least squares on steps 0 to 6, all at once.
    penalty = given.noise**2 * torch.cat([torch.full((m,), float(m)) for m in FEATURES]).double().diag()
    seen, y = phi[:7], given.y[0, 0, :7]
    weights = torch.linalg.solve(seen.T @ seen + penalty, seen.T @ y)
    expected = (phi[7] @ weights - given.y[0, 0, 7]).square().sum()
    torch.testing.assert_close(best_possible(given)[0, 0, 7], expected, rtol=1e-9, atol=1e-12)


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match="boundaries must be one of"):
        streams([1], "shifted")
    with pytest.raises(ValueError, match="not negative"):
        streams([-1])
    with pytest.raises(ValueError, match="number and steps"):
        streams([1], steps=0)
