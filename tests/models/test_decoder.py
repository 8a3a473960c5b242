"""Laws of the decoder: cached decoding, scanned and written-out layers, packing, remat, causality, counts."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxlm.core.errors import UserError
from jaxlm.core.tree import flatten_with_paths
from jaxlm.models.decoder import DecoderConfig, MlaConfig, MoeConfig, RopeConfig, make_decoder
from tests.drawn import drawn_params
from tests.quick import quick_ones

BASE = DecoderConfig(
    vocab_size=37, max_seq_len=64, num_layers=2, model_dim=32, num_heads=4, head_dim=8, mlp_dim=48, init_std=None
)
MLA = MlaConfig(kv_lora_rank=16, q_lora_rank=12, qk_nope_head_dim=8, qk_rope_head_dim=4, v_head_dim=6)
FORMS = {
    "rope": {},
    "llama3": {"rope": RopeConfig(scaling="llama3", factor=4.0)},
    "yarn": {"rope": RopeConfig(scaling="yarn", factor=4.0)},
    "learned": {"position": "learned", "norm": "layernorm", "bias": True, "mlp": "gelu", "qk_norm": False},
    "none": {"position": "none"},
    "gqa": {"num_kv_heads": 2},
    "mqa parallel": {"num_kv_heads": 1, "parallel_block": True, "tie_embeddings": False},
    "windows and tail": {"num_layers": 3, "window_pattern": (4, None)},
    "softcaps": {"attn_softcap": 5.0, "logit_softcap": 8.0, "embed_scale": True, "mlp": "geglu"},
    "unrolled": {"scan_layers": False, "mlp": "relu2", "window_pattern": (6,)},
    "attention alone": {"mlp": "none", "mlp_dim": None, "output_norms": True},
    "padded vocabulary": {"vocab_multiple": 16},
    "gemma3": {
        "num_layers": 4,
        "num_kv_heads": 1,
        "mlp": "geglu",
        "norm_offset": True,
        "output_norms": True,
        "query_pre_attn_scalar": 12.0,
        "embed_scale": True,
        "window_pattern": (4, 4, None),
        "rope": RopeConfig(theta=1e6, local_theta=1e4, scaling="linear", factor=8.0),
    },
    "mixtral": {"moe": MoeConfig(num_experts=4), "qk_norm": False, "num_kv_heads": 2, "tie_embeddings": False},
    "shared expert": {"moe": MoeConfig(num_experts=4, top_k=3, renormalize=False, shared_dim=24), "mlp": "gelu"},
    "latent": {"mla": MLA, "head_dim": None, "qk_norm": False},
    "latent, free queries, experts": {
        "mla": dataclasses.replace(MLA, q_lora_rank=None),
        "moe": MoeConfig(num_experts=4),
        "head_dim": None,
        "qk_norm": False,
        "window_pattern": (None, 4),
    },
}


def model_of(**changes):
    config = dataclasses.replace(BASE, **changes)
    model = make_decoder(config)
    return config, model, drawn_params(model)


@functools.cache
def whole_rows(form):
    """Model, parameters and the compiled forward pass of a form over whole rows."""
    _, model, params = model_of(**FORMS[form])
    return model, params, jax.jit(model.apply_fn)


def tokens_of(rows, length, seed=0):
    return jnp.asarray(np.random.default_rng(seed).integers(0, 37, (rows, length)), jnp.int32)


@pytest.mark.parametrize(
    "form",
    quick_ones(
        FORMS, "rope", "learned", "gqa", "windows and tail", "unrolled", "gemma3", "mixtral", "latent",
        "latent, free queries, experts",
    ),
)  # fmt: skip
def test_cached_decoding_of_ragged_prompts_equals_the_full_forward(form):
    model, params, apply_fn = whole_rows(form)
    lengths, total = (7, 3, 5), 12
    tokens = tokens_of(3, total)
    full = apply_fn(params, tokens)
    width = max(lengths)
    prompts, segments, positions = (np.zeros((3, width), np.int32) for _ in range(3))
    for row, n in enumerate(lengths):
        prompts[row, width - n :] = tokens[row, :n]
        segments[row, width - n :] = 1
        positions[row, width - n :] = np.arange(n)
    hidden_fn = jax.jit(lambda p, x, s, q, c: model.hidden(p, x, segment_ids=s, positions=q, kv_cache=c))
    hidden, cache, _ = hidden_fn(params, prompts, segments, positions, model.init_cache(3, width + total))
    steps = [model.logits(params, hidden[:, -1])]
    assert np.isfinite(np.asarray(hidden)).all()  # rows of padding too
    for i in range(4):
        at = np.array([n + i for n in lengths])
        new = np.asarray(tokens)[np.arange(3), at][:, None]
        hidden, cache, _ = hidden_fn(params, new, np.ones((3, 1), np.int32), at[:, None].astype(np.int32), cache)
        steps.append(model.logits(params, hidden[:, 0]))
    for i, logits in enumerate(steps):
        expected = np.stack([full[row, n - 1 + i] for row, n in enumerate(lengths)])
        np.testing.assert_allclose(logits, expected, atol=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_written_out_layers_are_the_scanned_ones(form):
    model, params, apply_fn = whole_rows(form)
    other = make_decoder(dataclasses.replace(model.config, scan_layers=not model.config.scan_layers))
    tokens = tokens_of(3, 12)
    np.testing.assert_allclose(jax.jit(other.apply_fn)(params, tokens), apply_fn(params, tokens), atol=1e-5)


@pytest.mark.parametrize("form", quick_ones(["gemma3", "learned", "latent, free queries, experts"], "gemma3"))
def test_gradients_of_written_out_layers_are_those_of_scanned_ones(form):
    config, model, params = model_of(**FORMS[form])
    other = make_decoder(dataclasses.replace(config, scan_layers=not config.scan_layers))
    tokens = tokens_of(2, 10)

    def loss(fn, p):
        return jnp.mean(jnp.square(fn(p, tokens)))

    a, grads_a = jax.jit(jax.value_and_grad(lambda p: loss(model.apply_fn, p)))(params)
    b, grads_b = jax.jit(jax.value_and_grad(lambda p: loss(other.apply_fn, p)))(params)
    np.testing.assert_allclose(a, b, rtol=1e-5)
    # Key biases shift all scores of a query alike: their gradient is zero, and what is left of it rounding.
    for (path, x), y in zip(flatten_with_paths(grads_a).items(), jax.tree.leaves(grads_b), strict=True):
        scale = np.linalg.norm(x) if not path.endswith("k/bias") else optax.tree.norm(grads_a)
        assert np.linalg.norm(x - y) <= 1e-5 * scale, path


@pytest.mark.parametrize("form", FORMS)
def test_a_token_never_sees_what_comes_after(form):
    _, params, apply_fn = whole_rows(form)
    tokens = np.asarray(tokens_of(3, 12))
    changed = tokens.copy()
    changed[:, 6] = (tokens[:, 6] + 1) % 37
    a, b = (np.asarray(apply_fn(params, x)) for x in (tokens, changed))
    np.testing.assert_array_equal(a[:, :6], b[:, :6])
    assert not np.allclose(a[:, 6], b[:, 6])


@pytest.mark.parametrize("policy", ["full", "dots"])
@pytest.mark.parametrize("scan", [True, False])
def test_recomputing_changes_only_memory(policy, scan):
    config, model, params = model_of(scan_layers=scan)
    other = make_decoder(dataclasses.replace(config, remat_policy=policy))
    tokens = tokens_of(2, 8)

    def gradient(fn):
        return jax.jit(jax.grad(lambda p: jnp.mean(jnp.square(fn(p, tokens)))))(params)

    for x, y in zip(jax.tree.leaves(gradient(model.apply_fn)), jax.tree.leaves(gradient(other.apply_fn)), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("form", ["windows and tail", "gemma3", "mixtral", "shared expert", "latent"])
def test_packed_segments_do_not_see_each_other(form):
    _, params, apply_fn = whole_rows(form)
    first, second = tokens_of(1, 5, 1), tokens_of(1, 7, 2)
    packed = jnp.concatenate([first, second], axis=1)
    segments = jnp.asarray([[1] * 5 + [2] * 7], jnp.int32)
    positions = jnp.asarray([[*range(5), *range(7)]], jnp.int32)
    together = apply_fn(params, packed, segment_ids=segments, positions=positions)
    np.testing.assert_allclose(together[:, :5], apply_fn(params, first), atol=1e-5)
    np.testing.assert_allclose(together[:, 5:], apply_fn(params, second), atol=1e-5)


def test_bfloat16_compute_keeps_float32_parameters_and_logits():
    _, model, params = model_of(compute_dtype="bfloat16")
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    hidden = model.hidden(params, tokens_of(1, 6)).hidden_btd
    logits = model.logits(params, hidden)
    assert (hidden.dtype, logits.dtype) == (jnp.bfloat16, jnp.float32)
    exact = make_decoder(BASE).apply_fn(params, tokens_of(1, 6))
    assert np.linalg.norm(logits - exact) < 0.05 * np.linalg.norm(exact)


def test_dropout_is_a_function_of_its_key_and_silent_without_one():
    _, model, params = model_of(dropout=0.5)
    tokens = tokens_of(2, 8)
    a, b, c = (model.hidden(params, tokens, dropout_key=jax.random.key(k))[0] for k in (1, 1, 2))
    np.testing.assert_array_equal(a, b)
    assert not np.allclose(a, c)
    plain = make_decoder(BASE).hidden(params, tokens)[0]
    np.testing.assert_allclose(model.hidden(params, tokens)[0], plain, atol=1e-6)


def test_zero_outputs_make_each_layer_the_identity():
    model, shallow = (make_decoder(dataclasses.replace(BASE, zero_init_outputs=True, num_layers=n)) for n in (2, 1))
    params = jax.jit(model.init)(jax.random.key(0))
    tokens = tokens_of(1, 5)
    first = dict(params, layers=jax.tree.map(lambda x: x[:1], params["layers"]))
    np.testing.assert_allclose(model.apply_fn(params, tokens), shallow.apply_fn(first, tokens), atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"num_kv_heads": 3}, "num_kv_heads=3"),
        ({"model_dim": 30, "head_dim": None}, "model_dim=30"),
        ({"mlp": "relu"}, "relu"),
        ({"dropout": 1.0}, "dropout=1.0"),
        ({"window_pattern": ()}, "window_pattern"),
        ({"head_dim": 7}, "head_dim=7"),
        ({"zero_init_head": True}, "tie_embeddings"),
        ({"mlp": "none"}, "has no MLP for mlp_dim=48"),
        ({"mlp": "none", "mlp_dim": None, "parallel_block": True}, "has no MLP"),
    ],
)
def test_impossible_shapes_are_refused_by_name(changes, words):
    with pytest.raises(ValueError, match=words):
        dataclasses.replace(BASE, **changes)


def test_more_tokens_than_learned_positions_are_refused():
    _, model, params = model_of(position="learned", max_seq_len=8)
    with pytest.raises(UserError, match="max_seq_len=8"):
        model.apply_fn(params, tokens_of(1, 9))
