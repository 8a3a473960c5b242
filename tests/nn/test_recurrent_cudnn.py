"""cuDNN's LSTM as JAX describes it: its own reference, on the weights as we pack them, is our scan.

What cuDNN itself gives on a GPU is `python -m tools.bench kernels`' to say.
"""

import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import rnn

from jaxlm.core.errors import UserError
from jaxlm.models.recurrent import RecurrentConfig, make_recurrent
from jaxlm.nn.recurrent import choose_unroll, unroll
from jaxlm.nn.recurrent_cudnn import pack_lstm
from tests.drawn import drawn_params

T, B, IN, D = 5, 3, 4, 6
CONFIG = RecurrentConfig(
    vocab_size=31, num_layers=3, model_dim=12, hidden_dim=20, init_std=0.5, hidden_dropout=0.3, weight_dropout=0.4
)


def reference(x, h, c, weights, lengths, *options):
    """`rnn.lstm` by JAX's own reference for it."""
    input_size, hidden_size, num_layers, _, bidirectional = options
    unpacked = rnn.unpack_lstm_weights(weights, input_size, hidden_size, num_layers, bidirectional)
    return rnn.lstm_ref(x, h, c, *unpacked, lengths, *options)


def test_packed_weights_are_the_layer(rng):
    shapes = {"x": (T, B, IN), "w": (IN, 4 * D), "bias": (4 * D,), "u": (D, 4 * D), "h": (B, D), "c": (B, D)}
    x, w, bias, u, h, c = (jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes.values())
    ours, last = unroll("lstm", x @ w + bias, u, None, {"h": h, "c": c})
    lengths = jnp.full(B, T, jnp.int32)
    theirs, h_last, c_last = reference(
        x.swapaxes(0, 1), h[None], c[None], pack_lstm(w, bias, u), lengths, IN, D, 1, 0.0, False
    )
    np.testing.assert_allclose(theirs.swapaxes(0, 1), ours, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(h_last[0], last["h"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(c_last[0], last["c"], rtol=1e-5, atol=1e-6)


# A text that begins at a row's first token is a state of zeros; one inside a row is for the scan.
@pytest.mark.parametrize("first", [[3, 0, 9], [3, -2, 9], None])
def test_a_model_by_cudnn_is_the_model_by_the_scan(first, rng, monkeypatch):
    monkeypatch.setattr(rnn, "lstm", reference)
    scan, cudnn = (make_recurrent(dataclasses.replace(CONFIG, implementation=one)) for one in ("scan", "cudnn"))
    params = drawn_params(scan)
    tokens = jnp.asarray(rng.integers(0, 31, (B, T)), jnp.int32)
    positions = None
    if first is not None:
        row = jnp.asarray(first)[:, None] + jnp.arange(T)
        positions = jnp.where(row < 0, row + 50, row).astype(jnp.int32)
    state = jax.tree.map(lambda x: x + 0.3, scan.init_cache(B, T))

    def work(model):
        def loss(params):
            out = model.hidden(params, tokens, positions=positions, kv_cache=state, dropout_key=jax.random.key(1))
            return jnp.sum(jnp.sin(out.hidden_btd)), out

        return jax.jit(jax.value_and_grad(loss, has_aux=True))(params)

    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6), work(cudnn), work(scan))


def test_what_auto_means_on_a_gpu(monkeypatch):
    f32 = jnp.dtype("float32")
    options = {"dtype": f32, "kernel_missing": lambda name: "not asked"}
    found = types.SimpleNamespace(compute_rnn_workspace_reserve_space_sizes=None)
    monkeypatch.setattr(rnn, "gpu_rnn", found)
    assert choose_unroll("auto", "gpu", cell="lstm", **options) == "cudnn"
    assert choose_unroll("cudnn", "gpu", cell="lstm", **options) == "cudnn"
    assert choose_unroll("auto", "gpu", cell="gru", **options) == "scan"
    for platform, cell in (("cpu", "lstm"), ("gpu", "gru")):
        with pytest.raises(UserError, match=r"implementation=cudnn is for LSTMs on NVIDIA GPUs"):
            choose_unroll("cudnn", platform, cell=cell, **options)
    monkeypatch.setattr(rnn, "gpu_rnn", None)
    assert choose_unroll("auto", "gpu", cell="lstm", **options) == "scan"
    with pytest.raises(UserError, match=r"implementation=cudnn cannot be had here, .*: use auto or scan"):
        choose_unroll("cudnn", "gpu", cell="lstm", **options)
