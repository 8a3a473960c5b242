"""The loss's kernel for GPUs, in Pallas's interpreter, against the loss of the whole logits."""

from typing import Any

import jax
import jax.numpy as jnp
import pytest

from jaxlm.losses.tokens import token_nll
from jaxlm.losses.triton_tokens import HeadKernel, head_nll


def inputs(n, d, v):
    keys = jax.random.split(jax.random.key(0), 4)
    hidden, table = jax.random.normal(keys[0], (n, d)), jax.random.normal(keys[1], (v, d))
    return hidden, table, jax.random.randint(keys[2], (n,), 0, v), jax.random.uniform(keys[3], (2, n))


@pytest.mark.parametrize(("n", "d", "v"), [(7, 16, 5003), (33, 32, 65)])
@pytest.mark.parametrize("z_coef", [0.0, 0.1])
@pytest.mark.parametrize("padding", [0, 11])
def test_loss_and_gradients(n, d, v, z_coef, padding):
    """Several blocks of symbols and one, z-loss, rows of the table that are padding."""
    hidden, table, targets, weights = inputs(n, d, v)
    padded = jnp.concatenate([table, 50 * jnp.ones((padding, d))])  # far too likely, if it were looked at

    def ours(hidden, padded):
        out: Any = head_nll(hidden, padded, targets, HeadKernel(v, jnp.dtype("float32"), interpret=True))
        nll, log_z = out
        return jnp.sum(weights[0] * nll) + (z_coef * jnp.sum(weights[1] * log_z**2) if z_coef else 0.0)

    def plain(hidden, padded):
        nll, log_z = token_nll(jnp.dot(hidden, padded[:v].T, precision="highest"), targets)
        return jnp.sum(weights[0] * nll) + z_coef * jnp.sum(weights[1] * log_z**2)

    with jax.default_matmul_precision("highest"):
        (loss, grads), (expected, expected_grads) = (
            jax.value_and_grad(fn, (0, 1))(hidden, padded) for fn in (ours, plain)
        )
    assert abs(loss - expected) < 1e-6 * expected
    for got, want in zip(grads, expected_grads, strict=True):
        assert jnp.linalg.norm(got - want) < 2e-6 * jnp.linalg.norm(want)
    assert not jnp.any(grads[1][v:])


def test_logits_rounded_to_bfloat16():
    """Rounding moves the logits of one token by up to 2^-9 of themselves; the loss's statistics stay f32."""
    hidden, table, targets, _ = inputs(64, 32, 500)

    def nll(dtype: str) -> Any:
        out: Any = head_nll(hidden, table, targets, HeadKernel(None, jnp.dtype(dtype), interpret=True))
        return out[0]

    exact, rounded = nll("float32"), nll("bfloat16")
    largest = jnp.max(jnp.abs(hidden @ table.T), axis=1)
    assert jnp.all(jnp.abs(rounded - exact) <= 2 * largest * 2.0**-8)
    assert not jnp.array_equal(rounded, exact)
