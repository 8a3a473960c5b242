"""Laws of the token losses against NumPy in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm.losses.tokens import chunked_token_nll, masked_sum, token_nll, z_loss


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


@pytest.mark.parametrize("chunk", [1, 4, 5, 10, 11, None])
def test_chunks_give_the_loss_and_gradient_of_the_whole(chunk):
    rng = np.random.default_rng(3)
    hidden = jnp.asarray(rng.normal(size=(2, 10, 6)), jnp.float32)
    head = jnp.asarray(rng.normal(size=(6, 13)), jnp.float32)
    targets = jnp.asarray(rng.integers(0, 13, (2, 10)), jnp.int32)
    mask = jnp.asarray(rng.integers(0, 2, (2, 10)), jnp.float32)

    def loss(head, hidden, chunk):
        nll, log_z = chunked_token_nll(lambda x: x @ head, hidden, targets, chunk)
        return masked_sum(nll, mask) + 0.1 * masked_sum(z_loss(log_z), mask)

    expected = jax.value_and_grad(loss, argnums=(0, 1))(head, hidden, None)
    found = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)), static_argnums=2)(head, hidden, chunk)
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-6)
    for got, want in zip(found[1], expected[1], strict=True):
        assert np.linalg.norm(got - want) <= 1e-6 * np.linalg.norm(want)


def test_chunks_never_hold_all_logits():
    hidden, head, targets = jnp.zeros((2, 64, 4)), jnp.zeros((4, 1000)), jnp.zeros((2, 64), jnp.int32)

    def loss(head):
        return jnp.sum(chunked_token_nll(lambda x: x @ head, hidden, targets, 8)[0])

    assert "[2,64,1000]" not in str(jax.make_jaxpr(jax.grad(loss))(head))
