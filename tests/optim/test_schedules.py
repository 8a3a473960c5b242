"""Schedules: end points, shape and continuity."""

import numpy as np
import pytest

from jaxlm.optim.schedules import make_schedule


def rates(name, **kwargs):
    schedule = make_schedule(name, peak_lr=1.0, num_steps=100, **kwargs)
    return np.array([np.asarray(schedule(step)) for step in range(101)], np.float64)


@pytest.mark.parametrize("name", ["cosine", "wsd", "linear", "constant"])
def test_warm_up_is_linear_and_never_zero(name):
    values = rates(name, warmup_steps=10)
    np.testing.assert_allclose(values[:10], np.arange(1, 11) / 10, rtol=1e-6)
    assert values.max() <= 1 + 1e-6


@pytest.mark.parametrize("name", ["cosine", "wsd", "linear"])
def test_ends_at_the_final_ratio(name):
    assert rates(name, warmup_steps=10, final_lr_ratio=0.1)[100] == pytest.approx(0.1, abs=1e-6)
    assert rates(name)[100] == pytest.approx(0.0, abs=1e-6)


def test_cosine_halfway():
    assert rates("cosine")[50] == pytest.approx(0.5, abs=1e-6)


def test_wsd_holds_then_falls_linearly():
    values = rates("wsd", warmup_steps=10, decay_fraction=0.2)
    np.testing.assert_allclose(values[10:81], 1.0)
    np.testing.assert_allclose(np.diff(values[80:]), -0.05, atol=1e-6)


def test_constant_holds():
    np.testing.assert_allclose(rates("constant"), 1.0)
