"""Laws of the token losses against NumPy in float64."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxlm.losses.tokens import masked_sum, token_nll, z_loss


def reference_nll(logits, targets):
    logits = logits.astype(np.float64)
    log_z = np.log(np.sum(np.exp(logits - logits.max(-1, keepdims=True)), -1)) + logits.max(-1)
    return log_z - np.take_along_axis(logits, targets[..., None], -1)[..., 0], log_z


def test_token_nll_equals_the_definition_in_float64():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(3, 5, 7)).astype(np.float32) * 20
    targets = rng.integers(0, 7, (3, 5)).astype(np.int32)
    nll, log_z = token_nll(jnp.asarray(logits), jnp.asarray(targets))
    expected_nll, expected_log_z = reference_nll(logits, targets)
    np.testing.assert_allclose(nll, expected_nll, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(log_z, expected_log_z, rtol=1e-6)
    np.testing.assert_allclose(z_loss(log_z), expected_log_z**2, rtol=1e-5)


def test_gradient_is_softmax_minus_one_hot():
    rng = np.random.default_rng(1)
    logits = jnp.asarray(rng.normal(size=(2, 3, 11)), jnp.float32)
    targets = jnp.asarray(rng.integers(0, 11, (2, 3)), jnp.int32)
    grad = jax.grad(lambda x: jnp.sum(token_nll(x, targets)[0]))(logits)
    np.testing.assert_allclose(grad, jax.nn.softmax(logits) - jax.nn.one_hot(targets, 11), atol=1e-6)


def test_uniform_logits_cost_log_v():
    nll, _ = token_nll(jnp.zeros((1, 4, 50)), jnp.zeros((1, 4), jnp.int32))
    np.testing.assert_allclose(nll, np.log(50), rtol=1e-6)


def test_masked_positions_add_nothing_even_if_not_finite():
    values = jnp.asarray([[1.0, jnp.inf, 3.0, jnp.nan]])
    mask = jnp.asarray([[1.0, 0.0, 1.0, 0.0]])
    assert float(masked_sum(values, mask)) == 4.0
