"""Laws of the encoder: who sees whom, packed = unpacked, BERT's sizes and equations, rules, configs."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm.core.errors import UserError
from jaxlm.core.tree import flatten_with_paths
from jaxlm.models.encoder import RULES, make_encoder, pool
from jaxlm.models.encoder_config import BERT_BASE, BERT_LARGE, EncoderConfig
from jaxlm.plan.families import count_encoder_params, train_flops_per_token
from jaxlm.sharding.mesh import MeshConfig, make_mesh
from jaxlm.sharding.rules import check_divides, match_rules, named_shardings
from tests.drawn import drawn_params

MODERN = EncoderConfig(vocab_size=31, max_seq_len=32, num_layers=2, model_dim=16, num_heads=2, init_std=0.3)
BERT = dataclasses.replace(
    BERT_BASE, vocab_size=31, max_seq_len=32, num_layers=2, model_dim=16, num_heads=2, mlp_dim=24, init_std=0.3
)
FORMS = [pytest.param(MODERN, id="modern"), pytest.param(BERT, id="bert")]


def made(config):
    model = make_encoder(config)
    return model, drawn_params(model)


@pytest.mark.parametrize(("config", "count"), [(BERT_BASE, 109_482_240), (BERT_LARGE, 335_141_888)])
def test_bert_has_its_published_number_of_parameters(config, count):
    shapes = flatten_with_paths(jax.eval_shape(make_encoder(config).init, jax.random.key(0)))
    assert sum(math.prod(s.shape) for path, s in shapes.items() if not path.startswith("head/")) == count


@pytest.mark.parametrize("config", FORMS)
def test_both_directions_are_seen_and_neither_padding_nor_neighbours(config, rng):
    model, params = made(config)
    hidden = jax.jit(lambda tokens, segments: model.hidden(params, tokens, segment_ids=segments)[0])
    tokens = rng.integers(0, 31, (1, 10)).astype(np.int32)
    segments = np.array([[1, 1, 1, 1, 2, 2, 2, 2, 0, 0]], np.int32)
    before = np.asarray(hidden(tokens, segments))
    for place in range(10):
        changed = tokens.copy()
        changed[0, place] = (changed[0, place] + 1) % 31
        moved = np.any(np.asarray(hidden(changed, segments)) != before, axis=-1)[0]
        same = (segments[0] == segments[0, place]) & (segments[0, place] > 0)
        real = segments[0] > 0  # what stands at padding is read by no one
        assert np.array_equal(moved[real], same[real])  # all of its segment, before and after it, and nothing else


@pytest.mark.parametrize(("config", "scan"), [(MODERN, True), (MODERN, False), (BERT, True)])
def test_packed_is_unpacked(config, scan, rng):
    model, params = made(dataclasses.replace(config, scan_layers=scan))
    apply_fn = jax.jit(model.apply_fn)
    texts = [rng.integers(0, 31, n).astype(np.int32) for n in (5, 7)]
    tokens = np.concatenate([*texts, np.zeros(4, np.int32)])[None]
    positions = np.concatenate([np.arange(5), np.arange(7), np.zeros(4)]).astype(np.int32)[None]
    segments = np.array([[1] * 5 + [2] * 7 + [0] * 4], np.int32)
    packed = apply_fn(params, jnp.asarray(tokens), positions=jnp.asarray(positions), segment_ids=segments)
    alone = [apply_fn(params, text[None])[0] for text in texts]
    np.testing.assert_allclose(packed[0, :12], np.concatenate(alone), rtol=1e-5, atol=1e-5)


def layer_norm(x, p):
    mean, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mean) / np.sqrt(var + 1e-12) * p["scale"] + p["bias"]


def gelu(x):
    return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def dense(x, p):
    return x @ p["kernel"] + p["bias"]


def bert_by_hand(params, tokens_t, types_t):
    """BERT's equations for one row, in float64 (Devlin et al. 2019; post-norm, erf GELU)."""
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    embed = p["embed"]
    x = layer_norm(embed["table"][tokens_t] + embed["positions"][: len(tokens_t)] + embed["types"][types_t],
                   p["embed_norm"])  # fmt: skip
    for i in range(2):
        layer = jax.tree.map(lambda leaf, i=i: leaf[i], p["layers"])
        q, k, v = (dense(x, layer["attn"][name]).reshape(-1, 2, 8) for name in "qkv")
        scores = np.einsum("tnh,snh->nts", q, k) / math.sqrt(8)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        attended = np.einsum("nts,snh->tnh", weights, v).reshape(len(tokens_t), 16)
        x = layer_norm(x + dense(attended, layer["attn"]["o"]), layer["attn_norm"])
        x = layer_norm(x + dense(gelu(dense(x, layer["mlp"]["up"])), layer["mlp"]["down"]), layer["mlp_norm"])
    head = p["head"]
    logits = layer_norm(gelu(dense(x, head["dense"])), head["norm"]) @ embed["table"].T + head["bias"]
    return x, logits, np.tanh(dense(x[0], p["pooler"]))


def test_bert_is_its_equations(rng):
    model, params = made(BERT)
    params = jax.tree.map(lambda leaf: leaf + jnp.asarray(0.1 * rng.standard_normal(leaf.shape), leaf.dtype), params)
    tokens, types = rng.integers(0, 31, 9).astype(np.int32), np.array([0] * 5 + [1] * 4, np.int32)
    options: Any = {"token_types": types[None]}
    hidden = model.hidden(params, tokens[None], **options).hidden_btd
    by_hand, logits, pooled = bert_by_hand(params, tokens, types)
    np.testing.assert_allclose(hidden[0], by_hand, atol=1e-5)
    np.testing.assert_allclose(model.logits(params, hidden)[0], logits, atol=1e-4)
    np.testing.assert_allclose(pool(BERT, params, hidden[:, 0])[0], pooled, atol=1e-5)


def test_every_parameter_has_a_rule_and_is_counted():
    for config in (MODERN, BERT, dataclasses.replace(BERT, post_norm=False, norm="rmsnorm")):
        shapes = jax.eval_shape(make_encoder(config).init, jax.random.key(0))
        match_rules(RULES, shapes)
        counts = count_encoder_params(config)
        assert counts.total == sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))
        assert counts.active == counts.total
    # BERT base: 12 layers, the head of the masked objective with the table, and the norm on the embeddings.
    d, f, v = 768, 3072, 30522
    layer = 4 * (d * d + d) + (d * f + f) + (f * d + d) + 4 * d
    matmul = 12 * layer + (d * d + d + 2 * d) + (v * d + v) + 2 * d
    assert count_encoder_params(BERT_BASE).matmul == matmul
    assert train_flops_per_token(BERT_BASE, 128) == 6 * matmul + 3 * 12 * 4 * d * 128


def test_remat_and_dropout(rng):
    tokens = rng.integers(0, 31, (2, 9)).astype(np.int32)

    def grads(config):
        model, params = made(config)
        return jax.jit(jax.grad(lambda p: jnp.sum(jnp.square(model.apply_fn(p, tokens)))))(params)

    plain, full = grads(MODERN), grads(dataclasses.replace(MODERN, remat_policy="full"))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), plain, full)
    model, params = made(dataclasses.replace(MODERN, dropout=0.5))
    one, two, off = (
        model.hidden(params, tokens, dropout_key=key)[0] for key in (*jax.random.split(jax.random.key(0)), None)
    )
    assert np.any(one != two)
    np.testing.assert_array_equal(off, made(MODERN)[0].hidden(params, tokens)[0])


@pytest.mark.parametrize("config", FORMS)
def test_a_mesh_changes_nothing(config, rng):
    model, params = made(dataclasses.replace(config, vocab_multiple=4))
    tokens = rng.integers(0, 31, (4, 9)).astype(np.int32)
    segments = (np.arange(9) < rng.integers(3, 10, (4, 1))).astype(np.int32)

    def logits(params):
        return jax.jit(model.apply_fn)(params, tokens, segment_ids=segments)

    plain = logits(params)
    mesh = make_mesh(MeshConfig(data=2, fsdp=2, model=2), jax.devices())
    specs = match_rules(RULES, params)
    check_divides(params, specs, dict(mesh.shape))
    with jax.set_mesh(mesh):
        np.testing.assert_allclose(logits(jax.device_put(params, named_shardings(mesh, specs))), plain, atol=1e-4)


def test_refusals():
    model, params = made(BERT)
    with pytest.raises(UserError, match="an encoder has no cache"):
        model.init_cache(1, 8)
    with pytest.raises(UserError, match="an encoder has no cache"):
        model.hidden(params, jnp.zeros((1, 4), jnp.int32), kv_cache=object())
    with pytest.raises(UserError, match="33 tokens exceed"):
        model.hidden(params, jnp.zeros((1, 33), jnp.int32))
    changes: Any = ({"mlp": "x"}, {"num_layers": 0}, {"dropout": 1.0}, {"num_token_types": -1}, {"norm_eps": 0.0})
    for change in changes:
        with pytest.raises(ValueError, match=rf"model\.{next(iter(change))}"):
            EncoderConfig(**change)
    with pytest.raises(ValueError, match="num_heads=3"):
        EncoderConfig(model_dim=16, num_heads=3)
