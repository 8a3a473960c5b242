"""Gaps and compute-equivalents of ladders whose laws are known."""

import numpy as np
import pytest

from jaxlm.scaling.equal_compute import Frontier, Noise, compare, find_frontier, find_noise

FLOPS = np.geomspace(1e15, 1e17, 5)


def _frontier(log_loss, flops=FLOPS, seeds=2):
    return Frontier(flops, np.asarray(log_loss), np.ones(len(flops)), np.full(len(flops), float(seeds)))


def test_a_text_that_needs_three_times_the_compute():
    def law(flops):
        return 1.0 - 0.1 * np.log(flops / 1e15)

    found = compare({"clean": _frontier(law(FLOPS)), "worse": _frontier(law(FLOPS / 3))}, "clean", Noise(1e-4, 20))
    (worse,) = found.values()
    inside = worse.budgets[1:]
    assert [one.times for one in inside] == pytest.approx([3.0] * 4)
    assert all(one.times_interval[0] < 3 < one.times_interval[1] < 3.1 for one in inside)
    assert [one.gap for one in worse.budgets] == pytest.approx([3**0.1 - 1] * 5)
    # Of the first budget all that is known is that the reference was never so bad.
    assert worse.budgets[0].times == np.inf
    assert worse.budgets[0].bound == 1.0
    assert worse.trend == "cannot tell"
    # The same runs seen from the other side: the reciprocal, at the budgets of the better one.
    (better,) = compare(
        {"clean": _frontier(law(FLOPS)), "worse": _frontier(law(FLOPS / 3))}, "worse", Noise(1e-4, 20)
    ).values()
    assert [one.times for one in better.budgets[1:]] == pytest.approx([1 / 3] * 4)


@pytest.mark.parametrize(("bend", "trend"), [(0.02, "widens"), (-0.02, "closes"), (0.0, "cannot tell")])
@pytest.mark.parametrize("sign", [1, -1])
def test_whether_the_gap_grows(bend, trend, sign):
    clean = 1.0 - 0.1 * np.log(FLOPS / 1e15)
    gap = sign * (0.1 + bend * np.log10(FLOPS / 1e15))
    found = compare({"clean": _frontier(clean), "other": _frontier(clean + gap)}, "clean", Noise(2e-3, 10))["other"]
    assert found.trend == trend
    assert found.slope == pytest.approx(sign * bend, abs=1e-9)


def test_intervals_hold_what_they_say():
    rng, noise, hold = np.random.default_rng(0), 0.01, np.zeros(3)
    clean = 1.0 - 0.1 * np.log(FLOPS / 1e15)
    trials = 200
    for trial in range(trials):
        seeds = {name: clean + gap + noise * rng.standard_normal((2, 5)) for name, gap in (("a", 0.0), ("b", 0.05))}
        groups = np.tile(np.arange(10), (2, 1))
        losses = np.exp(np.concatenate([seeds["a"], seeds["b"]], axis=1))
        measured = find_noise(groups.ravel(), losses.ravel())
        frontiers = {name: _frontier(values.mean(axis=0)) for name, values in seeds.items()}
        one = compare(frontiers, "a", measured, draws=300, seed=trial)["b"]
        last = one.budgets[-1]
        hold += [
            last.gap_interval[0] < np.expm1(0.05) < last.gap_interval[1],
            last.times_interval[0] < np.exp(0.5) < last.times_interval[1],
            one.slope_interval[0] < 0 < one.slope_interval[1],
        ]
    assert (hold / trials > 0.90).all()
    assert (hold[[0, 2]] / trials < 0.99).all()


def test_the_frontier_is_the_best_mean_of_each_budget():
    budgets, places = np.repeat([1e15, 1e16], 4), np.tile([8, 8, 16, 16], 2)
    losses = np.array([3.0, 3.2, 2.9, 3.5, 2.4, 2.4, 2.0, 2.2])
    found = find_frontier(budgets, places, budgets * 1.01, losses)
    assert found.place_k.tolist() == [8, 16]
    assert found.flops_k == pytest.approx([1.01e15, 1.01e16])
    assert found.log_loss_k == pytest.approx([np.log([3.0, 3.2]).mean(), np.log([2.0, 2.2]).mean()])
    assert found.count_k.tolist() == [2, 2]
    noise = find_noise(np.repeat(np.arange(4), 2), losses)
    halves = np.diff(np.log(losses).reshape(4, 2), axis=1) / np.sqrt(2)
    assert noise == (pytest.approx(np.sqrt((halves**2).mean())), 4)


def test_what_cannot_be_compared_says_why():
    one = _frontier(np.ones(5))
    with pytest.raises(ValueError, match="at least 2 budgets"):
        compare({"a": Frontier(*(x[:1] for x in one)), "b": one}, "a", Noise(0.1, 2))
    with pytest.raises(ValueError, match="budgets of 'b' are not those of 'a'"):
        compare({"a": one, "b": _frontier(np.ones(5), FLOPS * 3)}, "a", Noise(0.1, 2))
    with pytest.raises(ValueError, match="every run stands once"):
        find_noise([0, 1, 2], [1.0, 1.0, 1.0])
    with pytest.raises(ValueError, match="loss must be one number above 0"):
        find_frontier([1e15], [8], [1e15], [np.nan])
