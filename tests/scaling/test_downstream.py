"""Loss to error, and two steps to a larger model."""

import numpy as np
import pytest

from jaxlm.scaling.downstream import fit_error_of_loss, two_steps
from jaxlm.scaling.kaplan import fit_power_law

LOSS = np.linspace(2.0, 4.0, 12)


def _sigmoid(loss):
    return 0.1 + 0.65 / (1 + np.exp(-3.0 * (loss - 3.0)))


def _exponential(loss):
    return 0.75 - 8.0 * np.exp(-1.5 * loss)


@pytest.mark.parametrize("chance", [None, 0.75])
def test_a_sigmoid_is_recovered(chance: float | None):
    fit = fit_error_of_loss(LOSS, _sigmoid(LOSS), link="sigmoid", chance=chance, resamples=0)
    assert fit.constants == pytest.approx({"low": 0.1, "high": 0.75, "k": 3.0, "L_0": 3.0}, rel=1e-3)
    assert fit.predict(1.8) == pytest.approx(_sigmoid(1.8), abs=1e-4)


@pytest.mark.parametrize("chance", [None, 0.75])
def test_an_exponential_is_recovered(chance: float | None):
    fit = fit_error_of_loss(LOSS, _exponential(LOSS), link="exponential", chance=chance, resamples=0)
    assert fit.constants == pytest.approx({"epsilon": 0.75, "k": 8.0, "gamma": 1.5}, rel=1e-3)


def test_two_steps_hold_a_larger_model():
    rng = np.random.default_rng(0)
    flops = np.geomspace(1e15, 1e18, 16)

    def loss_of(c):
        return 1.5 + 40 * c**-0.08

    loss = loss_of(flops) * np.exp(0.003 * rng.standard_normal(16))
    error = _sigmoid(loss) + 0.004 * rng.standard_normal(16)
    law = fit_power_law(flops, loss, irreducible=True, resamples=300)
    found = two_steps(law, fit_error_of_loss(loss, error, link="sigmoid", chance=0.75, resamples=300), 1e19)
    truth = _sigmoid(loss_of(1e19))
    assert found.error_interval[0] < truth < found.error_interval[1]
    assert found.loss == pytest.approx(loss_of(1e19), rel=0.01)
    assert found.error == pytest.approx(truth, abs=0.03)
    with pytest.raises(ValueError, match="resamples"):
        two_steps(law, fit_error_of_loss(loss, error, resamples=0), 1e19)


@pytest.mark.parametrize(
    ("loss", "error", "message"),
    [
        (LOSS[:4], _sigmoid(LOSS[:4]), "at least 5 values"),
        (LOSS, 100 * _sigmoid(LOSS), "shares from 0 to 1"),
        (LOSS, _sigmoid(LOSS)[::-1], "does not fall"),
        (LOSS, np.r_[_sigmoid(LOSS[1:]), np.nan], "not NaN"),
    ],
)
def test_bad_input_is_said(loss, error, message):
    with pytest.raises(ValueError, match=message):
        fit_error_of_loss(loss, error)
