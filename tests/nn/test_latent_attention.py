"""Latent attention against its equations (DeepSeek-V2, section 2.1), written out in float64 NumPy."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm.core.tree import flatten_with_paths
from jaxlm.models.decoder import DecoderConfig, MlaConfig, make_decoder
from jaxlm.nn.attention import attend
from jaxlm.nn.latent_attention import LatentAttention
from jaxlm.nn.rope import RopeConfig, rope_tables
from tests.drawn import drawn_params

B, T, D, N = 2, 6, 24, 3
SIZES = {"kv_lora_rank": 10, "qk_nope_head_dim": 5, "qk_rope_head_dim": 4, "v_head_dim": 7}


def by_hand(p, x, config):
    """c_kv = norm(x W_dkv); k = [c_kv W_uk, rope(x W_kr)]; v = c_kv W_uv; q alike; softmax(q k / sqrt(d)) v W_o."""

    def norm(y, scale):
        return y / np.sqrt(np.mean(y**2, axis=-1, keepdims=True) + 1e-6) * scale

    def rotate(y):  # [b, t, ..., h]: pairs (i, i + h/2) turn by t theta^(-2i/h)
        half = y.shape[-1] // 2
        angle = np.arange(T)[:, None] * 10000.0 ** (-np.arange(half) / half)
        angle = angle.reshape(T, *[1] * (y.ndim - 3), half)
        a, b = y[..., :half], y[..., half:]
        return np.concatenate([a * np.cos(angle) - b * np.sin(angle), b * np.cos(angle) + a * np.sin(angle)], axis=-1)

    nope, rope, rank, v = (SIZES[n] for n in ("qk_nope_head_dim", "qk_rope_head_dim", "kv_lora_rank", "v_head_dim"))
    down = x @ p["kv_down/kernel"]
    latent, k_rope = norm(down[..., :rank], p["kv_norm/scale"]), rotate(down[..., rank:])
    up = (latent @ p["kv_up/kernel"]).reshape(B, T, N, nope + v)
    keys = np.concatenate([up[..., :nope], np.broadcast_to(k_rope[:, :, None], (B, T, N, rope))], axis=-1)
    if config.q_lora_rank is None:
        q = x @ p["q/kernel"]
    else:
        q = norm(x @ p["q_down/kernel"], p["q_norm/scale"]) @ p["q_up/kernel"]
    q = q.reshape(B, T, N, nope + rope)
    q = np.concatenate([q[..., :nope], rotate(q[..., nope:])], axis=-1)
    scores = np.einsum("btnh,bsnh->bnts", q, keys) / np.sqrt(nope + rope)
    scores = np.where(np.tril(np.ones((T, T), bool)), scores, -np.inf)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    return np.einsum("bnts,bsnh->btnh", weights, up[..., nope:]).reshape(B, T, N * v) @ p["o/kernel"]


@pytest.mark.parametrize("q_lora_rank", [None, 8])
def test_it_is_its_equations(q_lora_rank, rng):
    config = MlaConfig(q_lora_rank=q_lora_rank, **SIZES)
    f32 = np.dtype("float32")
    layer = LatentAttention(config, N, True, False, 1e-6, 0.3, 0.3, False, f32, f32)
    rope = rope_tables(T, RopeConfig(), config.qk_rope_head_dim)
    x = rng.normal(size=(B, T, D)).astype(np.float32)
    scale = DecoderConfig(mla=config, model_dim=D, num_heads=N, qk_norm=False).attn_scale
    attend_fn = functools.partial(attend, scale=scale)
    params = layer.init(jax.random.key(0), x, attend_fn, None, rope)["params"]
    params = jax.tree.map(lambda leaf: leaf + 0.1 * rng.normal(size=leaf.shape).astype(np.float32), params)
    out, _ = layer.apply({"params": params}, x, attend_fn, None, rope)
    wide = {path: np.asarray(leaf, np.float64) for path, leaf in flatten_with_paths(params).items()}
    np.testing.assert_allclose(out, by_hand(wide, x.astype(np.float64), config), rtol=1e-4, atol=1e-5)


def test_yarns_temperature_is_that_of_the_whole_score(rng):
    """Scores f squared times as large are those of queries f squared times as large."""
    sizes = MlaConfig(q_lora_rank=None, **SIZES)
    logits = []
    for factor in (1.3, 1.0):
        rope = RopeConfig(scaling="yarn", factor=8.0, original_max_seq_len=16, attention_factor=factor)
        shape: dict[str, Any] = {"vocab_size": 17, "max_seq_len": 16, "num_layers": 1, "model_dim": D, "num_heads": N}
        config = DecoderConfig(**shape, mla=sizes, qk_norm=False, rope=rope, init_std=0.4, scan_layers=False)
        model = make_decoder(config)
        params = drawn_params(model)
        if factor == 1.0:
            kernel = params["layers"]["layer_0"]["attn"]["q"]["kernel"]
            params["layers"]["layer_0"]["attn"]["q"]["kernel"] = kernel * 1.3**2
        logits.append(model.apply_fn(params, jnp.arange(12)[None] % 17))
    np.testing.assert_allclose(logits[0], logits[1], atol=1e-5)
