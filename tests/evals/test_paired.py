"""The paired interval is SciPy's, and pairs are what it takes away the seeds' own spread by."""

import numpy as np
import pytest
from scipy import stats

from jaxlm.evals.paired import paired_difference


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
