"""Predicting a run beyond a ladder, and judging it."""

import numpy as np
import pytest

from jaxlm.scaling.ahead import best_of_budgets, fit_frontier, judge, predict_ahead
from jaxlm.scaling.chinchilla import allocate, fit_chinchilla

LAW = {"E": 1.0, "A": 60.0, "B": 300.0, "alpha": 0.4, "beta": 0.4}
BUDGETS = np.geomspace(3e11, 1e14, 6)


def _loss(n, d):
    return LAW["E"] + LAW["A"] / n ** LAW["alpha"] + LAW["B"] / d ** LAW["beta"]


def _ladder():
    n = np.concatenate([float(allocate(LAW, c).num_params) * np.geomspace(0.4, 2.5, 5) for c in BUDGETS])
    flops = np.repeat(BUDGETS, 5)
    d = flops / 6 / n
    return n, d, _loss(n, d) * np.exp(0.001 * np.random.default_rng(0).standard_normal(len(n))), flops


def test_a_run_beyond_the_ladder_is_held_and_a_power_law_is_worse():
    n, d, loss, flops = _ladder()
    law = fit_chinchilla(n, d, loss, resamples=200)
    ahead_c = 8 * BUDGETS[-1]
    best = allocate(LAW, ahead_c)
    frontier = fit_frontier(flops, loss, resamples=200)
    ahead = predict_ahead(
        law, frontier, flops, loss, num_params=float(best.num_params), num_tokens=float(best.num_tokens), flops=ahead_c
    )
    judged = judge(ahead, float(best.loss))
    assert judged.holds
    assert judged.inside
    assert judged.power_error < -0.02
    assert ahead.last_flops == pytest.approx(BUDGETS[-1])
    assert ahead.last_loss == loss[-5:].min()


def test_what_is_asked():
    n, d, loss, flops = _ladder()
    law, frontier = fit_chinchilla(n, d, loss, resamples=100), fit_frontier(flops, loss, resamples=100)
    ahead = predict_ahead(law, frontier, flops, loss, num_params=1e7, num_tokens=1e8, flops=6e15)
    right = judge(ahead, ahead.chinchilla)
    assert (right.error, right.share_of_drop, right.holds) == (0, 0, True)
    assert not judge(ahead, ahead.chinchilla / 1.03).within_loss
    assert judge(ahead, ahead.last_loss + 0.1).share_of_drop == np.inf
    assert not judge(ahead, ahead.power).nearer_than_power
    with pytest.raises(ValueError, match="went wrong"):
        judge(ahead, np.nan)


def test_the_best_of_each_budget():
    _, _, loss, flops = _ladder()
    best_c, best_l = best_of_budgets(flops * np.tile([1, 1.01, 0.99, 1, 1], 6), loss)
    np.testing.assert_allclose(best_c, BUDGETS, rtol=0.02)
    np.testing.assert_array_equal(best_l, loss.reshape(6, 5).min(axis=1))
    with pytest.raises(ValueError, match="needs at least 3"):
        fit_frontier(flops[:10], loss[:10])
