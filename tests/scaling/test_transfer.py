"""The best rate of a grid, its drift and slopes."""

import numpy as np
import pytest

from jaxlm.scaling.transfer import best_rate, drift_steps, log_slope

RATES = tuple(2.0**i for i in range(-5, 0))


def test_the_lowest_mean_wins_and_the_parabola_finds_its_vertex():
    losses = np.array([[(i + 3.3) ** 2 + noise for noise in (-0.01, 0.01)] for i in range(-5, 0)])
    best = best_rate(RATES, losses)
    assert best is not None
    assert (best.place, best.rate, best.at_edge) == (2, 2.0**-3, False)
    assert best.vertex == pytest.approx(-3.3)
    assert best.standard_error == pytest.approx(0.01)


def test_a_rate_that_diverged_once_is_out():
    losses = np.array([[3.0], [1.0], [2.0], [np.nan], [np.nan]])
    losses[1] = np.inf
    best = best_rate(RATES, losses)
    assert best is not None
    assert best.place == 2
    assert best_rate(RATES, np.full((5, 2), np.nan)) is None


def test_drift_and_slope():
    low, high = (best_rate(RATES, np.abs(np.arange(5.0) - at)[:, None]) for at in (1, 4))
    assert low is not None
    assert high is not None
    assert drift_steps({64: high, 128: low}) == drift_steps({64: high, 128: low, 256: None}) == 3
    assert drift_steps({64: None}) is None
    assert high.at_edge
    assert log_slope((64, 128, 256), (3.0, 6.0, 12.0)) == pytest.approx(1.0)
    assert log_slope((64, 128, 256), (3.0, 3.0, 3.0)) == pytest.approx(0.0)
