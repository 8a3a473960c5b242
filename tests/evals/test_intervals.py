"""Intervals of scores: known cases, and what clusters and groups change."""

import math

import numpy as np
import pytest
from scipy import stats

from jaxlm.evals import intervals
from jaxlm.evals.calibration import brier, calibration_error, choice_probabilities


def test_items_alone_have_students_interval(rng):
    values = rng.normal(size=30)
    found = intervals.mean(values)
    wanted = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (found.lower, found.upper) == pytest.approx((wanted.low, wanted.high))
    assert intervals.mean(values, [""] * 30) == found
    assert math.isnan(intervals.mean([3.0]).lower)
    assert intervals.mean([3.0]).record() == {"value": 3.0}


def test_items_of_one_cluster_count_as_one(rng):
    """Every item said five times over tells nothing new: the interval stays, and does not shrink by sqrt(5)."""
    right = (rng.random(200) < 0.7).astype(float)
    names = [str(i) for i in range(200)]
    for score in (intervals.mean, intervals.share):
        once = score(right)
        copied = score(np.repeat(right, 5), np.repeat(names, 5).tolist())
        naive = score(np.repeat(right, 5))
        assert copied.num_clusters == 200
        assert copied.upper - copied.lower == pytest.approx(once.upper - once.lower, rel=0.01)
        assert naive.upper - naive.lower < 0.5 * (once.upper - once.lower)


def test_a_share_keeps_inside_and_has_a_width_where_all_agree():
    """Newcombe 1998, table I: 0 of 20 is 0 to 0.1611."""
    none = intervals.share(np.zeros(20))
    assert (none.lower, none.upper) == (0.0, pytest.approx(0.1611, abs=5e-5))
    few = intervals.share(np.ones(20), ["a"] * 10 + ["b"] * 10)
    assert few.lower < intervals.share(np.ones(20)).lower
    with pytest.raises(ValueError, match="no share"):
        intervals.share([0.5, 1.5])


def test_a_ratio_is_divided_once(rng):
    nats, tokens = rng.gamma(5, size=50), rng.integers(1, 9, size=50)
    found = intervals.ratio(nats, tokens)
    assert found.value == pytest.approx(nats.sum() / tokens.sum())
    drawn = intervals.bootstrap(lambda a, b: a.sum() / b.sum(), [nats, tokens], seed=0, draws=2000)
    assert (drawn.lower, drawn.upper) == pytest.approx((found.lower, found.upper), rel=0.05)
    assert drawn == intervals.bootstrap(lambda a, b: a.sum() / b.sum(), [nats, tokens], seed=0, draws=2000)
    with pytest.raises(ValueError, match="no ratio"):
        intervals.ratio([], [])


def test_the_bootstrap_draws_clusters_whole(rng):
    values = np.repeat(rng.normal(size=40), 5)
    names = np.repeat(np.arange(40), 5).astype(str).tolist()
    drawn = intervals.bootstrap(np.mean, [values], names, seed=1, draws=2000)
    found = intervals.mean(values, names)
    assert (drawn.lower, drawn.upper) == pytest.approx((found.lower, found.upper), abs=0.05)


def test_intervals_cover_what_they_say():
    """Clusters of 4 with a common part: about 95 of 100 intervals hold the mean; without the clusters far fewer."""
    rng = np.random.default_rng(3)
    names = np.repeat(np.arange(50), 4).astype(str).tolist()
    hits = np.zeros(2)
    for _ in range(400):
        values = np.repeat(rng.normal(size=50), 4) + 0.5 * rng.normal(size=200)
        for i, found in enumerate((intervals.mean(values, names), intervals.mean(values))):
            hits[i] += found.lower <= 0 <= found.upper
    assert 0.92 <= hits[0] / 400 <= 0.98
    assert hits[1] / 400 < 0.8


def test_a_mean_of_groups_counts_each_once(rng):
    parts = [intervals.share(np.repeat([1.0, 0.0], [9, 1])), intervals.share(np.repeat([1.0, 0.0], [50, 50]))]
    found = intervals.mean_of_groups(parts)
    assert found.value == pytest.approx(0.7)
    assert found.num_items == 110
    assert found.upper - found.lower < parts[0].upper - parts[0].lower


def test_a_model_that_says_what_it_knows_is_calibrated(rng):
    stated = rng.random(20_000)
    right = (rng.random(20_000) < stated).astype(float)
    assert calibration_error(stated, right)["error"] < 0.02
    assert calibration_error(np.full(100, 0.9), np.zeros(100))["error"] == pytest.approx(0.9)
    assert math.isnan(calibration_error(np.zeros(0), np.zeros(0))["error"])
    probabilities = choice_probabilities([-1000.0, -1000.0 + math.log(3)])
    assert probabilities == pytest.approx([0.25, 0.75])
    assert brier(probabilities, 1) == pytest.approx(0.125)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_share_of_nothing_or_all_lies_in_its_interval_whatever_the_rounding(share):
    for count in range(1, 200):
        low, high = intervals.wilson(share, count)
        assert low <= share <= high


def test_a_mean_of_shares_stays_inside():
    found = intervals.mean_of_groups([intervals.share([1.0] * 5), intervals.share([1.0] * 5)])
    assert found.value == found.upper == 1.0
    # The distance of one part's lower bound, in quadrature and halved.
    assert 1 - found.lower == pytest.approx((1 - intervals.share([1.0] * 5).lower) / 2**0.5)
    even = intervals.mean_of_groups([intervals.mean([0.0, 1.0, 2.0]), intervals.mean([4.0, 5.0, 9.0])])
    assert even.upper - even.value == pytest.approx(even.value - even.lower)
