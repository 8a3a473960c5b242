"""The range test on curves whose answer is known."""

import numpy as np
import pytest

from jaxlm.scaling.rate_range import rate_range, smooth

RATES: list[float] = np.geomspace(1e-6, 1.0, 61).tolist()


def valley(diverges=True):
    """Falls around 1e-3, is flat from 1e-2 on, climbs past 0.1."""
    x = np.log10(RATES)
    fall = -2.0 / (1 + np.exp(-4 * (x + 3)))
    return 5.0 + fall + (np.exp(6 * (x + 1)) if diverges else 0.0)


def test_steepest_lowest_and_diverged():
    found = rate_range(RATES, valley())
    assert found.steepest_lr == pytest.approx(1e-3, rel=0.3)
    assert 2e-3 < found.lowest_loss_lr < 0.1
    assert found.diverged_lr is not None
    assert 0.03 < found.diverged_lr < 0.3
    assert found.suggested_lr == found.steepest_lr


def test_divergence_caps_the_suggestion_and_may_be_missing():
    values = valley()
    values[np.searchsorted(RATES, 2.5e-3) :] = np.inf
    found = rate_range(RATES, values)
    assert found.diverged_lr is not None
    assert found.suggested_lr == pytest.approx(found.diverged_lr / 4)
    assert rate_range(RATES, valley(diverges=False)).diverged_lr is None


def test_a_loss_that_never_falls_is_refused():
    with pytest.raises(ValueError, match="begin lower"):
        rate_range(RATES, np.linspace(1, 2, 61))


def test_smoothing_is_unbiased():
    np.testing.assert_allclose(smooth([3.0] * 5), 3.0)
    assert smooth([1.0, 2.0])[1] == pytest.approx((0.9 * 1 + 2.0) / 1.9)
