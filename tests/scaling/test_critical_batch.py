"""The critical batch: its constants come back from runs made with them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm.scaling.critical_batch import fit_critical_batch, fit_critical_batch_law, noise_scale
from jaxlm.scaling.kaplan import critical_batch_tokens

BATCH = np.geomspace(2**8, 2**20, 13)


def test_steps_and_tokens_come_back():
    steps = 1000.0 * (1 + 2.0**14 / BATCH)
    fit = fit_critical_batch(BATCH, steps, resamples=0)
    assert (fit.min_steps, fit.batch_tokens) == pytest.approx((1000.0, 2.0**14), rel=1e-4)
    assert fit.steps_at(fit.batch_tokens) == pytest.approx(2 * fit.min_steps)
    assert fit.min_tokens == pytest.approx(1000.0 * 2.0**14, rel=1e-4)
    # The hyperbola of the paper.
    tokens = steps * BATCH
    np.testing.assert_allclose((steps / fit.min_steps - 1) * (tokens / fit.min_tokens - 1), 1.0, rtol=1e-3)


def test_intervals_hold_the_truth():
    rng = np.random.default_rng(0)
    held = 0
    for trial in range(40):
        steps = 1000.0 * (1 + 2.0**14 / BATCH) * np.exp(0.05 * rng.standard_normal(13))
        low, high = fit_critical_batch(BATCH, steps, resamples=200, seed=trial).intervals["batch_tokens"]
        held += low <= 2.0**14 <= high
    # Percentiles of 13 runs are narrow.
    assert held >= 33


def test_kaplans_law_comes_back():
    loss = np.linspace(2.5, 6.0, 9)
    noise = np.exp(0.05 * np.random.default_rng(0).standard_normal(9))
    law = fit_critical_batch_law(loss, critical_batch_tokens(loss) * noise)
    assert law.alpha == pytest.approx(0.21, rel=0.05)
    low, high = law.intervals["alpha"]
    assert low < 0.21 < high
    assert law.at(3.0) == pytest.approx(critical_batch_tokens(3.0), rel=0.1)


def test_noise_scale_of_known_gradients():
    mean, deviation = jnp.full(50, 0.2), 3.0

    def squared(batch: int, count: int, key: int) -> np.ndarray:
        noise = deviation / np.sqrt(batch) * jax.random.normal(jax.random.key(key), (count, 50))
        return np.asarray(((mean + noise) ** 2).sum(axis=1))

    found = noise_scale(16, squared(16, 4000, 0), 256, squared(256, 4000, 1))
    assert found.trace == pytest.approx(50 * 9.0, rel=0.03)
    assert found.squared_norm == pytest.approx(2.0, rel=0.1)
    assert found.batch_tokens == pytest.approx(225.0, rel=0.1)
    with pytest.raises(ValueError, match="smaller one first"):
        noise_scale(16, 1.0, 16, 1.0)


@pytest.mark.parametrize(
    ("batch", "steps", "message"),
    [
        (BATCH[:2], np.array([9.0, 5.0]), "at least 3 batch sizes"),
        (BATCH, np.full(13, 1000.0), "far above the critical one, add smaller"),
        (BATCH, 1e9 / BATCH, "far below the critical one, add larger"),
        (BATCH, np.r_[1e9 / BATCH[1:], np.nan], "not NaN"),
    ],
)
def test_bad_input_is_said(batch, steps, message):
    with pytest.raises(ValueError, match=message):
        fit_critical_batch(batch, steps)
    with pytest.raises(ValueError, match="does not grow"):
        fit_critical_batch_law([2.0, 3.0, 4.0], [10.0, 20.0, 30.0])
