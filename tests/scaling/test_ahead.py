"""Predicting a run beyond a ladder, and judging it."""

import numpy as np
import pytest

from jaxlm.scaling.ahead import best_of_budgets, fit_frontier, judge, predict_ahead
from jaxlm.scaling.chinchilla import allocate, fit_chinchilla
from jaxlm.scaling.lowest import fit_lowest

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
    right = judge(ahead, ahead.loss)
    assert (right.error, right.share_of_drop, right.holds) == (0, 0, True)
    assert not judge(ahead, ahead.loss / 1.03).within_loss
    assert judge(ahead, ahead.last_loss + 0.1).share_of_drop == np.inf
    assert not judge(ahead, ahead.power).nearer_than_power
    with pytest.raises(ValueError, match="went wrong"):
        judge(ahead, np.nan)


def test_the_lowest_points_are_those_of_a_known_law():
    """Without noise the parabolas of log loss are lowest near the optimum of the law that the runs were made by, and a
    run far from it changes nothing."""
    n, d, _, flops = _ladder()
    loss = _loss(n, d)
    loss[4::5] *= 1.2
    lowest = fit_lowest(n, flops, loss)
    best = allocate(LAW, BUDGETS)
    np.testing.assert_allclose(lowest.loss_k, best.loss, rtol=2e-3)
    np.testing.assert_allclose(lowest.num_params_k, best.num_params, rtol=0.1)
    ahead_c = 8 * BUDGETS[-1]
    truth = float(allocate(LAW, ahead_c).loss)
    assert lowest.predict(ahead_c) == pytest.approx(truth, rel=5e-3)
    assert lowest.law.constants["E"] == pytest.approx(1.0, abs=0.05)
    assert lowest.exponent == pytest.approx(0.5, abs=0.02)
    with pytest.raises(ValueError, match="needs at least 4 budgets of 3 sizes, and there are 3"):
        fit_lowest(n[:15], flops[:15], loss[:15])


def test_the_interval_of_the_lowest_points_holds_a_run():
    n, _, loss, flops = _ladder()
    ahead_c = 8 * BUDGETS[-1]
    lowest = fit_lowest(n, flops, loss)
    frontier = fit_frontier(flops, loss, resamples=100)
    ahead = predict_ahead(lowest, frontier, flops, loss, num_params=1e7, num_tokens=1e8, flops=ahead_c)
    assert ahead.law == "lowest"
    assert judge(ahead, float(allocate(LAW, ahead_c).loss)).holds
    low, high = ahead.interval
    assert low < ahead.loss < high
    assert high / low < 1.05


def test_the_best_of_each_budget():
    _, _, loss, flops = _ladder()
    best_c, best_l = best_of_budgets(flops * np.tile([1, 1.01, 0.99, 1, 1], 6), loss)
    np.testing.assert_allclose(best_c, BUDGETS, rtol=0.02)
    np.testing.assert_array_equal(best_l, loss.reshape(6, 5).min(axis=1))
    with pytest.raises(ValueError, match="needs at least 3"):
        fit_frontier(flops[:10], loss[:10])


def test_an_irreducible_loss_that_the_best_law_lacks_widens_the_interval():
    rng = np.random.default_rng(11)
    flops, near = np.repeat(BUDGETS, 5), np.tile(np.geomspace(0.4, 2.5, 5), 6)
    u = np.log(near)
    loss = (60 / flops**0.12 + 0.02) * np.exp(0.05 * u**2) * np.exp(0.008 * rng.standard_normal(30))
    lowest = fit_lowest(0.1 * flops**0.5 * near, flops, loss)
    assert lowest.law.constants["E"] < 1e-6
    low, high = lowest.predict_interval(8e14, draws=600)
    assert low < 60 / 8e14**0.12 + 0.02 < high
    floor, exponent = lowest.intervals["E"], lowest.intervals["alpha"]
    assert floor[0] < 0.02 < floor[1] < loss.min()
    assert exponent[0] < lowest.law.constants["alpha"] < exponent[1]
