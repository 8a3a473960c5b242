"""Dates of changes: of curves whose change is known."""

import numpy as np
import pytest

from jaxlm.evals.changes import date_change

STEPS = np.arange(0, 1001, 20)


def test_a_step_up_is_dated_and_sharp():
    found = date_change(STEPS, np.where(STEPS >= 500, 1.0, 0.1))
    assert found is not None
    assert 480 < found.begins < found.step < found.ends <= 500
    assert found.sharp
    assert (found.before, found.after) == (0.1, 1.0)


def test_a_logistic_rise_is_dated_half_way():
    found = date_change(STEPS, 1 / (1 + np.exp(-(STEPS - 400) / 20)))
    assert found is not None
    assert found.step == pytest.approx(400, abs=2)
    assert found.ends - found.begins == pytest.approx(2 * 20 * np.log(3), abs=4)  # three to one on both sides
    assert found.sharp


@pytest.mark.parametrize("curve", [STEPS / 1000, 1 - np.exp(-STEPS / 200)])
def test_a_rise_from_the_first_step_on_is_no_phase_change(curve):
    found = date_change(STEPS, curve)
    assert found is not None
    assert not found.sharp


def test_no_change_and_no_curve():
    assert date_change(STEPS, 0.1 + 0.3 * (STEPS > 500)) is None
    for steps, scores in (([0], [1.0]), ([0, 1], [1.0]), ([1, 1], [0.0, 1.0])):
        with pytest.raises(ValueError, match="two or more"):
            date_change(steps, scores)
