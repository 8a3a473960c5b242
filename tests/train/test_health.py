"""Figures of health against NumPy on the same numbers, and notes where they are bad."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxlm.models.decoder import DecoderConfig, make_decoder
from jaxlm.models.observe import observe, record
from jaxlm.optim.optimizers import OptimizerConfig, make_optimizer
from jaxlm.train.health import make_health_step, warn, weight_figures
from jaxlm.train.objectives import causal_objective
from jaxlm.train.state import create_state
from jaxlm.train.step import make_train_step

CONFIG = DecoderConfig(
    vocab_size=31, max_seq_len=16, num_layers=3, model_dim=16, num_heads=4, num_kv_heads=2, window_pattern=(4, None)
)
LAYER = "layers/layer_{}"


def batch_of(rows=4, length=12):
    tokens = np.random.default_rng(0).integers(0, 31, (rows, length + 1)).astype(np.int32)
    segments = np.ones((rows, length), np.int32)
    segments[0, 8:] = 0
    return {
        "tokens": jnp.asarray(tokens[:, :-1]),
        "targets": jnp.asarray(tokens[:, 1:]),
        "segment_ids": jnp.asarray(segments),
        "positions": jnp.broadcast_to(jnp.arange(length, dtype=jnp.int32), (rows, length)),
        "loss_mask": jnp.asarray(segments, jnp.float32),
    }


@pytest.fixture(scope="module")
def looked():
    """(state before, batch, figures of the look, state after the plain step)."""
    model = make_decoder(CONFIG)
    optimizer = OptimizerConfig(peak_lr=0.01, schedule="constant", clip_norm=0.1)
    tx = make_optimizer(optimizer, 10)

    def step_with(tx):
        return make_train_step(causal_objective(model), tx, schedule=optimizer.schedule_fn(10), grad_accum_steps=2)

    state = jax.jit(lambda key: create_state(model.init(key), tx))(jax.random.key(0))
    batch, key = batch_of(), jax.random.key(1)
    figures = jax.jit(make_health_step(CONFIG, step_with, tx, grad_accum_steps=2))(state, None, batch, key)
    after, _ = jax.jit(step_with(tx))(state, None, batch, key)
    return state, batch, jax.device_get(figures), after


def kernels(params, layer):
    places = {0: ("layer_0", 0), 1: ("layer_1", 0)}
    tree = params["tail_0"] if layer == 2 else jax.tree.map(lambda x: x[0], params["layers"][places[layer][0]])
    return np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree) if x.ndim == 2])


def test_the_update_is_that_of_the_plain_step(looked):
    state, _, figures, after = looked
    for layer in range(3):
        old, new = (kernels(s.params, layer) for s in (state, after))
        assert figures["param_rms"][layer] == pytest.approx(np.sqrt(np.mean(old**2)), rel=1e-5)
        ratio = np.sqrt(np.mean((new - old) ** 2) / np.mean(old**2))
        assert figures["update_ratio"][layer] == pytest.approx(ratio, rel=1e-3)
    table = [np.asarray(s.params["embed"]["table"]) for s in (state, after)]
    ratio = np.sqrt(np.mean((table[1] - table[0]) ** 2) / np.mean(table[0] ** 2))
    assert figures["embed_update_ratio"] == pytest.approx(ratio, rel=1e-3)
    assert figures["grad_rms"].shape == (3,)
    assert (figures["grad_rms"] > 0).all()


def test_activations_are_those_of_the_counted_tokens_of_the_first_microbatch(looked):
    state, batch, figures, _ = looked
    first = jax.tree.map(lambda x: x[::2], batch)  # rows 0 and 2
    found = jax.jit(lambda p: record(CONFIG, p, first))(state.params)
    counted = np.asarray(first["segment_ids"]) != 0
    for layer in range(3):
        stream = np.asarray(found.stream[layer], np.float64)[counted]
        assert figures["stream_rms"][layer] == pytest.approx(np.sqrt(np.mean(stream**2)), rel=1e-4)
        assert figures["stream_max"][layer] == pytest.approx(np.abs(stream).max(), rel=1e-5)
        q, k = (np.asarray(x, np.float64) for x in found.queries_keys[layer])
        scores = np.einsum("btnh,bsnh->bnts", q, np.repeat(k, 2, axis=2)) / np.sqrt(CONFIG.head_width)
        distance = np.arange(12)[:, None] - np.arange(12)[None]
        seen = (distance >= 0) & (distance < (CONFIG.window(layer) or 99))
        seen = seen & counted[:, None, :, None] & counted[:, None, None, :]
        assert figures["attn_logit_max"][layer] == pytest.approx(np.abs(np.where(seen, scores, 0)).max(), rel=1e-4)
    logits = np.asarray(make_decoder(CONFIG).logits(state.params, found.hidden[0]), np.float64)[counted]
    assert figures["logit_max"] == pytest.approx(np.abs(logits).max(), rel=1e-4)
    assert figures["log_z_mean"] == pytest.approx(np.log(np.exp(logits).sum(-1)).mean(), rel=1e-4)


def test_the_recording_is_of_the_model_itself(looked):
    state, batch, _, _ = looked
    found = jax.jit(lambda p: record(CONFIG, p, batch).hidden[0])(state.params)
    model = make_decoder(CONFIG)
    kept = {name: batch[name] for name in ("positions", "segment_ids")}
    plain = jax.jit(lambda p: model.hidden(p, batch["tokens"], **kept).hidden_btd)(state.params)
    np.testing.assert_allclose(found, plain, atol=1e-5)


def test_dead_units_and_entries_that_are_not_finite_are_counted(looked):
    _, batch, _, _ = looked
    config = dataclasses.replace(CONFIG, window_pattern=(None,))
    params = jax.jit(make_decoder(config).init)(jax.random.key(0))
    up = params["layers"]["layer_0"]["mlp"]["up"]["kernel"]
    params["layers"]["layer_0"]["mlp"]["up"]["kernel"] = up.at[1, :, : up.shape[2] // 4].set(0.0)
    look = jax.jit(lambda p: observe(config, p, batch))
    np.testing.assert_allclose(look(params)["dead_units"], [0, 0.25, 0], atol=0.02)
    params["layers"]["layer_0"]["mlp"]["up"]["kernel"] = up.at[2].set(jnp.inf)
    np.testing.assert_array_equal(look(params)["nonfinite"] > 0, [False, False, True])


def test_layers_of_attention_alone_have_no_figures_of_an_mlp(looked):
    _, batch, figures, _ = looked
    config = dataclasses.replace(CONFIG, mlp="none")
    found = jax.eval_shape(lambda key: observe(config, make_decoder(config).init(key), batch), jax.random.key(0))
    assert {"mlp_rms", "dead_units"} <= figures.keys()
    assert not {"mlp_rms", "dead_units"} & found.keys()
    assert found["attn_rms"].shape == (3,)


def test_figures_of_weights_know_stacks_of_any_family():
    ones = jnp.ones
    params = {
        "embed": {"table": ones((4, 2))},
        "layers": {"attn": {"q": {"kernel": ones((2, 3, 3)) * jnp.array([1.0, 2.0])[:, None, None]}}},
    }
    figures = weight_figures(params, params, optax.tree.scale(0.01, params))
    np.testing.assert_allclose(figures["param_rms"], [1, 2])
    np.testing.assert_allclose(figures["update_ratio"], [0.01, 0.01], rtol=1e-5)
    recurrent = {"embed": {"table": ones((4, 2))}, "layer_0": {"cell": {"kernel": 3 * ones((2, 2))}}}
    np.testing.assert_allclose(weight_figures(recurrent, recurrent, recurrent)["param_rms"], [3])


def test_notes():
    calm = {
        "attn_logit_max": [10.0, 60.0],
        "nonfinite": [0.0, 0.0],
        "dead_units": [0.1, 0.2],
        "update_ratio": [1e-3, 1e-3],
    }
    assert warn(calm, calm) == []
    assert "layer 1: attention scores" in warn(calm, {"attn_logit_max": [10.0, 40.0]})[0]
    bad = calm | {"nonfinite": [0.0, 0.1], "dead_units": [0.9, 0.9], "update_ratio": [0.5, 1e-3]}
    notes = warn(bad, None)
    assert [note.split(":")[0] for note in notes] == ["layer 1", "layers 0, 1", "layer 0"]
