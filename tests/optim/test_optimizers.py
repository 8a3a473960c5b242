"""Optimisers: one step against the published update rules in NumPy, masks, groups and Muon on stacked layers."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest

from jaxlm.core.tree import flatten_with_paths
from jaxlm.optim.groups import param_group
from jaxlm.optim.optimizers import OptimizerConfig, decay_mask, make_optimizer, muon_dimension_numbers
from jaxlm.optim.schedules import relaxed_promotion


def tree(seed=0, scale=1.0):
    rng = np.random.default_rng(seed)

    def draw(*shape):
        return jnp.asarray(rng.normal(size=shape) * scale, jnp.float32)

    return {
        "embed": {"table": draw(10, 4)},
        "layers": {"layer_0": {"attn": {"q": {"kernel": draw(3, 4, 6)}}, "attn_norm": {"scale": draw(3, 4)}}},
        "head": {"kernel": draw(4, 10)},
    }


def one_step(config, params, grads, num_steps=10):
    tx = make_optimizer(config, num_steps)
    updates, _ = tx.update(grads, tx.init(params), params)
    return jax.tree.map(lambda u: np.asarray(u, np.float64), updates)


BASE = OptimizerConfig(peak_lr=0.1, schedule="constant", weight_decay=0.0, clip_norm=None)


def test_adamw_first_step_is_the_sign_of_the_gradient():
    updates = one_step(dataclasses.replace(BASE, eps=0.0), tree(0), tree(1))
    for update, grad in zip(jax.tree.leaves(updates), jax.tree.leaves(tree(1)), strict=True):
        np.testing.assert_allclose(update, -0.1 * np.sign(grad), rtol=1e-5)


def test_lion_step_is_a_sign_too():
    updates = one_step(dataclasses.replace(BASE, name="lion"), tree(0), tree(1))
    for update, grad in zip(jax.tree.leaves(updates), jax.tree.leaves(tree(1)), strict=True):
        np.testing.assert_allclose(update, -0.1 * np.sign(grad), rtol=1e-5)


@pytest.mark.parametrize("embeddings", [False, True])
@pytest.mark.parametrize("name", ["adamw", "lion", "adafactor", "muon"])
def test_decay_is_rate_times_decay_times_matrix_and_touches_nothing_else(name, embeddings):
    params, grads = tree(0), tree(1)
    config = dataclasses.replace(BASE, name=name, weight_decay=0.5, decay_embeddings=embeddings)
    with_decay = one_step(config, params, grads)
    without = one_step(dataclasses.replace(BASE, name=name), params, grads)
    difference = jax.tree.map(lambda a, b: a - b, with_decay, without)
    mask = decay_mask(params, decay_embeddings=embeddings)
    expected = jax.tree.map(lambda p, m: -0.1 * 0.5 * np.asarray(p) * m, params, mask)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-6), difference, expected)


@pytest.mark.parametrize("name", ["adamw", "lion", "adafactor", "muon"])
def test_every_optimizer_goes_downhill(name):
    params = tree(0)
    config = dataclasses.replace(BASE, name=name, peak_lr=0.03, schedule="cosine")
    tx = make_optimizer(config, 60)

    def loss_fn(p):
        return sum(jnp.sum(jnp.square(x)) for x in jax.tree.leaves(p))

    state = tx.init(params)
    before = float(loss_fn(params))
    step = jax.jit(lambda p, s: tx.update(jax.grad(loss_fn)(p), s, p))
    for _ in range(60):
        updates, state = step(params, state)
        params = optax.apply_updates(params, updates)
    assert float(loss_fn(params)) < 0.5 * before


def test_muon_orthogonalises_each_layer_of_a_stack():
    updates = one_step(dataclasses.replace(BASE, name="muon", peak_lr=1.0), tree(0), tree(1))
    stacked = updates["layers"]["layer_0"]["attn"]["q"]["kernel"]
    singular = np.linalg.svd(stacked, compute_uv=False) / np.sqrt(6 / 4)
    assert singular.shape == (3, 4)
    assert np.all((singular > 0.5) & (singular < 1.3))  # Newton-Schulz lands near 1, not on it
    alone = {
        "layers": {"layer_0": {"attn": {"q": {"kernel": tree(1)["layers"]["layer_0"]["attn"]["q"]["kernel"][1:2]}}}}
    }
    single = one_step(dataclasses.replace(BASE, name="muon", peak_lr=1.0), alone, alone)
    np.testing.assert_allclose(single["layers"]["layer_0"]["attn"]["q"]["kernel"][0], stacked[1], atol=1e-5)


@pytest.mark.parametrize("rms", [None, 0.2])
def test_muon_is_that_of_optax(rms):
    """But for what it decays: there norms and biases go with the embeddings."""
    config = dataclasses.replace(BASE, name="muon", embedding_lr=0.03, weight_decay=0.5, muon_consistent_rms=rms)
    theirs = optax.contrib.muon(
        config.schedule_fn(10),
        weight_decay=0.5,
        adam_b1=config.b1,
        adam_b2=config.b2,
        adam_learning_rate=config.schedule_fn(10, 0.03),
        muon_weight_dimension_numbers=muon_dimension_numbers,
        consistent_rms=rms,
    )
    params, grads = tree(0), tree(1)
    ours, state = one_step(config, params, grads), theirs.init(params)
    want, _ = relaxed_promotion(theirs.update)(grads, state, params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-9), ours, want)
    mine = make_optimizer(config, 10).init(params)
    assert flatten_with_paths(mine).keys() == flatten_with_paths(state).keys()  # checkpoints of either open


def test_muon_hands_eps_to_what_trains_the_rest():
    updates = one_step(dataclasses.replace(BASE, name="muon", eps=1e3), tree(0), tree(1))
    assert np.abs(updates["embed"]["table"]).max() < 1e-3


def test_clipping_scales_to_the_norm():
    grads = tree(1, scale=100.0)
    clipped = one_step(dataclasses.replace(BASE, clip_norm=1.0, eps=1e3), tree(0), grads)
    whole = one_step(dataclasses.replace(BASE, eps=1e3), tree(0), grads)
    assert optax.tree.norm(clipped) < 0.01 * optax.tree.norm(whole)


def test_groups():
    assert param_group("embed/table") == "embedding"
    assert param_group("head/kernel") == "embedding"
    assert param_group("layers/layer_0/mlp/up/kernel") == "matrix"
    assert param_group("final_norm/scale") == "vector"
    with pytest.raises(ValueError, match="'adapter/a' matches no rule"):
        param_group("adapter/a")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("peak_lr", -1.0),
        ("peak_lr", float("nan")),
        ("peak_lr", float("inf")),
        ("b1", 1.0),
        ("clip_norm", 0.0),
        ("clip_norm", float("nan")),
        ("eps", -1.0),
        ("embedding_lr", -1.0),
        ("muon_ns_steps", 0),
        ("warmup_steps", -1),
        ("final_lr_ratio", 2.0),
    ],
)
def test_bad_values_name_the_field(field, value):
    with pytest.raises(ValueError, match=field):
        OptimizerConfig(**{field: value})
