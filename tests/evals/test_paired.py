"""The paired interval is SciPy's, and pairs are what it takes away the seeds' own spread by."""

import numpy as np
import pytest
from scipy import stats

from jaxlm.evals.paired import mcnemar, paired_difference


def test_equal_infinities_differ_by_nothing():
    assert paired_difference([np.inf, 1.0, 3.0], [np.inf, 1.0, 2.0]).difference == pytest.approx(1 / 3)
    assert paired_difference([np.inf, 1.0], [1.0, 1.0]).difference == np.inf


def test_it_is_students_interval(rng):
    seeds = rng.normal(size=6)
    a, b = seeds + 0.3 + 0.05 * rng.normal(size=6), seeds
    found = paired_difference(a, b)
    interval = stats.ttest_rel(a, b).confidence_interval(0.95)
    assert (found.lower, found.upper) == pytest.approx((interval.low, interval.high))
    assert found.difference == pytest.approx(np.mean(a) - np.mean(b))
    assert 0 < found.lower < 0.3 < found.upper < 1
    assert found.num_pairs == 6


@pytest.mark.parametrize(("a", "b"), [([1.0], [2.0]), ([1.0, 2.0], [1.0])])
def test_one_value_has_no_spread(a, b):
    with pytest.raises(ValueError, match="two pairs"):
        paired_difference(a, b)


def test_items_alone_are_their_own_clusters(rng):
    a, b = rng.normal(size=20), rng.normal(size=20)
    assert paired_difference(a, b, [""] * 20) == pytest.approx(paired_difference(a, b))
    twice = paired_difference(np.repeat(a, 2), np.repeat(b, 2), np.repeat(np.arange(20), 2).astype(str).tolist())
    assert twice.upper - twice.lower == pytest.approx(
        paired_difference(a, b).upper - paired_difference(a, b).lower, rel=1e-6
    )
    with pytest.raises(ValueError, match="one cluster"):
        paired_difference(a, b, ["same"] * 20)


def test_mcnemars_test_looks_at_where_they_differ():
    """10 against 2: the binomial's two tails, 2 (1 + 12 + 66) / 4096; items on which both agree change nothing."""
    a, b = np.repeat([1, 0], [10, 2]), np.repeat([0, 1], [10, 2])
    assert mcnemar(a, b) == pytest.approx(2 * (1 + 12 + 66) / 4096)
    assert mcnemar(np.r_[a, np.ones(50)], np.r_[b, np.ones(50)]) == pytest.approx(mcnemar(a, b))
    assert mcnemar([1, 0], [1, 0]) == 1.0
    with pytest.raises(ValueError, match="0 or 1"):
        mcnemar([0.5], [1.0])
