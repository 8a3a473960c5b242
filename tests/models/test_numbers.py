"""A decoder over vectors of numbers: it sees what came before, row by row, and lengths where a constant stands by."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm.models.decoder import DecoderConfig
from jaxlm.models.numbers import make_number_reader

CONFIG = DecoderConfig(max_seq_len=8, num_layers=2, model_dim=16, num_heads=2, init_std=None)


@pytest.fixture(scope="module")
def reader():
    made = make_number_reader(CONFIG, 3)
    return made._replace(init=jax.jit(made.init), outputs=jax.jit(made.outputs))


def test_rows_do_not_see_each_other_nor_what_comes_after(reader):
    params = reader.init(jax.random.key(0))
    inputs_btf = jax.random.normal(jax.random.key(1), (2, 6, 3))
    out_bt = reader.outputs(params, inputs_btf)
    assert out_bt.shape == (2, 6)
    changed = reader.outputs(params, inputs_btf.at[0, 4].add(1.0))
    np.testing.assert_allclose(changed[0, :4], out_bt[0, :4], atol=1e-6)
    np.testing.assert_allclose(changed[1], out_bt[1], atol=1e-6)
    assert float(jnp.min(jnp.abs(changed - out_bt)[0, 4:])) > 1e-5


def test_the_map_into_the_stream_learns(reader):
    params = reader.init(jax.random.key(0))
    grads = jax.jit(jax.grad(lambda p: jnp.sum(reader.outputs(p, jnp.ones((1, 2, 3))))))(params)
    assert params["embed"]["table"].shape == (3, 16)
    assert float(jnp.max(jnp.abs(grads["embed"]["table"]))) > 0
