"""All layers of a decoding step in one kernel, in Pallas's interpreter: what the model's own cached step gives."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from jaxlm.generate.decode import left_pad, prefill
from jaxlm.generate.sampling import SamplingConfig
from jaxlm.models.decoder import DecoderConfig, MoeConfig, make_decoder
from jaxlm.models.decoder_inference import inference_config, inference_params
from jaxlm.models.decoder_kernel import decode_kernel, layer_weights, stack_cache
from jaxlm.nn.norms import rms_normalize
from jaxlm.nn.rope import rope_tables
from jaxlm.nn.triton_decode import decode_layers
from tests.drawn import drawn_params

LLAMA = DecoderConfig(
    vocab_size=61,
    max_seq_len=64,
    num_layers=2,
    model_dim=64,
    num_heads=4,
    num_kv_heads=2,
    mlp_dim=90,
    qk_norm=False,
    init_std=0.1,
)
"""Heads in groups of two; an MLP whose width is no multiple of a tile's rows."""


@pytest.mark.slow  # the interpreter's program is large: most of the time is its compilation
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("bfloat16", 0.02)])
def test_one_kernel_gives_what_the_cached_step_gives(dtype, tolerance):
    config = dataclasses.replace(LLAMA, compute_dtype=dtype)
    model = make_decoder(inference_config(config))
    params = inference_params(config, drawn_params(make_decoder(config)))
    prompt: Any = left_pad([list(range(3, 14))], 0, length=16)  # five slots of padding
    greedy = SamplingConfig(temperature=0.0)
    state = prefill(model, params, *prompt, max_new_tokens=8, sampling=greedy, key=jax.random.key(1))
    kv_cache, ones = state.kv_cache, jnp.ones((1, 1), jnp.int32)
    tokens, positions = state.token_b[:, None], state.position_b[:, None]
    wanted = model.hidden(params, tokens, positions=positions, segment_ids=ones, kv_cache=kv_cache)
    assert wanted.kv_cache is not None

    kernel = decode_kernel(config, interpret=True, warps=1, slots=8, splits=3)
    x_d, cache = jax.jit(lambda *args: decode_layers(kernel, *args))(
        params["embed"]["table"][state.token_b[0]],
        layer_weights(config, params),
        stack_cache(config, kv_cache.layers),
        kv_cache.length,
        kv_cache.segment_ids_bs[0].at[kv_cache.length].set(1),
        jnp.concatenate(rope_tables(state.position_b, config.rope, config.head_width)),
    )
    hidden_d = rms_normalize(x_d, config.norm_eps) * params["final_norm"]["scale"]
    pairs = [(hidden_d, wanted.hidden_btd[0, 0])]
    pairs += zip(cache, stack_cache(config, wanted.kv_cache.layers), strict=True)
    for ours, theirs in pairs:
        ours, theirs = (array.astype(jnp.float32) for array in (ours, theirs))
        assert jnp.linalg.norm(ours - theirs) < tolerance * jnp.linalg.norm(theirs)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("moe", MoeConfig()),
        ("mlp", "gelu"),
        ("bias", True),
        ("qk_norm", True),
        ("window_pattern", (8, None)),
        ("compute_dtype", "float16"),
        ("head_dim", 24),
    ],
)
def test_what_the_kernel_does_not_compute_is_refused(field, value):
    config = dataclasses.replace(LLAMA, **{field: value})
    with pytest.raises(ValueError, match=field.removeprefix("compute_")):
        decode_layers_of(config)


def decode_layers_of(config):
    """As far as shapes go."""
    cache = jnp.zeros((1, config.kv_heads, 8, config.head_width), config.compute_dtype)
    decode_layers(decode_kernel(config), jnp.zeros(config.model_dim), None, (cache, cache), *[None] * 3)  # pyright: ignore[reportArgumentType]


def test_weights_in_another_form_are_refused():
    params = inference_params(LLAMA, drawn_params(make_decoder(LLAMA)), weights="int8")
    with pytest.raises(ValueError, match="attn/q"):
        layer_weights(LLAMA, params)
