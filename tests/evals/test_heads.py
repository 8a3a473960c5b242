"""Scores of heads: of attention made by hand, and of a model against plain arithmetic."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm.evals import heads
from jaxlm.models.decoder import DecoderConfig, make_decoder

CONFIG = DecoderConfig(
    vocab_size=11, max_seq_len=16, num_layers=2, model_dim=16, num_heads=4, num_kv_heads=2, mlp="none", init_std=0.5
)


@pytest.fixture(scope="module")
def params():
    return jax.jit(make_decoder(CONFIG).init)(jax.random.key(0))


def record_of(params, tokens_bt):
    """The stream before the first layer, and what its attention adds."""
    found = heads.record(CONFIG, params, {"tokens": tokens_bt})
    return found.embedding[0], found.attention[0]


def test_weights_are_those_that_the_model_attends_with(params):
    tokens_bt = jax.random.randint(jax.random.key(1), (2, 9), 0, 11)
    look = jax.jit(lambda params: (heads.attention_weights(CONFIG, params, tokens_bt), record_of(params, tokens_bt)))
    weights, (x_btd, attended_btd) = look(params)
    assert [w.shape for w in weights] == [(2, 4, 9, 9)] * 2
    for w in weights:
        np.testing.assert_allclose(jnp.sum(w, axis=-1), 1.0, rtol=1e-5)
        assert float(jnp.max(jnp.triu(w, 1))) == 0.0
    # The first layer's, worked out anew into what it adds to the stream.
    block = jax.tree.map(lambda x: x[0], params["layers"]["layer_0"])
    normed_btd = x_btd / jnp.sqrt(jnp.mean(x_btd**2, axis=-1, keepdims=True) + CONFIG.norm_eps)
    v_bskh = (normed_btd @ block["attn"]["v"]["kernel"]).reshape(2, 9, 2, 4)
    out_btnh = jnp.einsum("bnts,bsnh->btnh", weights[0], jnp.repeat(v_bskh, 2, axis=2))
    out_btd = out_btnh.reshape(2, 9, 16) @ block["attn"]["o"]["kernel"]
    np.testing.assert_allclose(out_btd, attended_btd, atol=1e-5)


def test_heads_that_do_one_thing_alone_score_one(monkeypatch, params):
    tokens_bt = jnp.asarray([[3, 5, 7, 3, 5, 7, 3]])
    before_ts = np.zeros((7, 7), np.float32)
    before_ts[0, 0] = 1
    before_ts[np.arange(1, 7), np.arange(6)] = 1
    behind_ts = np.zeros((7, 7), np.float32)  # each looks behind the last place where its own symbol stood
    behind_ts[np.arange(3), 0] = 1
    behind_ts[np.arange(3, 7), np.arange(1, 5)] = 1
    made = jnp.asarray(np.stack([before_ts, behind_ts])[None])
    monkeypatch.setattr(heads, "attention_weights", lambda *_: [made])
    found = heads.head_scores(CONFIG, params, tokens_bt)
    np.testing.assert_allclose(found.previous_token, [[1.0, 1 / 6]], atol=1e-6)  # 1 looks at 0 by being told nothing
    np.testing.assert_allclose(found.prefix_matching, [[0.0, 1.0]], atol=1e-6)


def test_rows_without_repeats_have_nothing_to_match(params):
    found = jax.jit(lambda params: heads.head_scores(CONFIG, params, jnp.arange(8)[None]))(params)
    np.testing.assert_allclose(found.prefix_matching, 0.0)
    assert float(jnp.min(found.previous_token)) > 0
