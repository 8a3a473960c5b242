"""Jumps between rungs are found, steep but smooth curves are left alone."""

import numpy as np
import pytest

from jaxlm.scaling.jumps import JumpTest

SIZES = np.geomspace(1e6, 1e10, 10)
X = np.log10(SIZES)
ERROR = 0.02
COVARIANCE = np.eye(10) * ERROR**2


def _noise(count: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((count, 10)) * ERROR


def test_a_step_is_found_where_it_is():
    found = JumpTest(SIZES, COVARIANCE)(0.2 + 0.5 * (SIZES > 1e8) + _noise(1)[0])
    assert found.found
    assert found.share > 0.8
    assert found.between[0] < 1e8 < found.between[1]
    assert found.between[0] < found.size < found.between[1]


@pytest.mark.parametrize("width", [1.2, 2.0, 4.0])
def test_a_smooth_curve_is_accused_as_rarely_as_the_level_says(width: float):
    curve = 0.1 + 0.7 / (1 + np.exp(-4.394 * (X - 8.2) / width))
    test = JumpTest(SIZES, COVARIANCE)
    assert np.mean([test(curve + noise).found for noise in _noise(60)]) <= 0.1


def test_a_small_step_on_a_long_rise_is_no_jump_and_neither_is_one_down():
    test = JumpTest(SIZES, COVARIANCE / 100)
    small = test(0.2 * (X - 6) + 0.1 * (SIZES > 1e8))
    assert (small.found, small.p < 0.05, small.share < 0.5) == (False, True, True)
    assert not test(0.7 - 0.5 * (SIZES > 1e8)).found


def test_too_few_rungs_are_refused():
    with pytest.raises(ValueError, match="5 rungs: a jump needs 6 or more"):
        JumpTest(SIZES[:5], COVARIANCE[:5, :5])
