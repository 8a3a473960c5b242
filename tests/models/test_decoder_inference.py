"""Laws of the layout for generation: the same function, in the compute dtype bit for bit; int8 within its rounding."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm.core.tree import count_bytes, flatten_with_paths
from jaxlm.models.decoder import DecoderConfig, MlaConfig, MoeConfig, make_decoder
from jaxlm.models.decoder_inference import inference_config, inference_params
from jaxlm.nn.linear import KERNEL_SCALE, dequantize, quantize_kernel
from tests.drawn import drawn_params

SMALL = {"vocab_size": 61, "max_seq_len": 32, "num_layers": 3, "model_dim": 32, "num_heads": 4, "init_std": 0.3}
FORMS = {
    "scanned": {},
    "biases_tail": {"bias": True, "window_pattern": (4, None), "mlp": "gelu", "norm": "layernorm", "num_kv_heads": 2},
    "bf16": {"compute_dtype": "bfloat16", "tie_embeddings": False, "position": "learned"},
    "experts": {"moe": MoeConfig(num_experts=4, shared_dim=16)},
    "latent": {"mla": MlaConfig(16, 24, 8, 4, 8), "qk_norm": False, "bias": True},
    "latent_direct": {"mla": MlaConfig(16, None, 8, 4, 8), "qk_norm": False, "bias": True},
}


@functools.cache
def made(form):
    config = DecoderConfig(**SMALL, **FORMS[form])
    model = make_decoder(config)
    return config, model, drawn_params(model)


def tokens():
    return jnp.asarray(np.random.default_rng(0).integers(0, 61, (2, 9)), jnp.int32)


@pytest.mark.parametrize("form", FORMS)
def test_the_layout_for_generation_is_the_same_function(form):
    config, model, params = made(form)
    written = make_decoder(inference_config(config))
    laid_out = jax.jit(functools.partial(inference_params, config))(params)
    shapes = jax.eval_shape(lambda: written.init_cache(1, 4)).layers
    assert set(shapes) == {"tail_0", "tail_1", "tail_2"}
    expected = jax.jit(model.apply_fn)(params, tokens())
    got = jax.jit(written.apply_fn)(laid_out, tokens())
    if config.compute_dtype == "float32":
        np.testing.assert_allclose(got, expected, atol=1e-5)
        return
    # XLA:CPU rounds less often inside a fusion, and fuses the two otherwise: neither is further from f32.
    exact = jax.jit(make_decoder(dataclasses.replace(config, compute_dtype="float32")).apply_fn)(params, tokens())
    assert np.abs(got - exact).mean() < 1.2 * np.abs(expected - exact).mean()


def test_kernels_of_one_input_stand_side_by_side():
    config, _, params = made("biases_tail")
    attn = inference_params(config, params)["tail_2"]["attn"]
    assert set(attn) == {"q+k+v", "o", "q_norm", "k_norm"}
    parts = params["tail_0"]["attn"]
    for name in ("kernel", "bias"):
        joined = jnp.concatenate([parts[part][name] for part in "qkv"], axis=-1)
        np.testing.assert_array_equal(attn["q+k+v"][name], joined)


@pytest.mark.parametrize("form", ["scanned", "bf16", "experts", "latent"])
def test_int8_weights_are_near_and_a_quarter_of_the_memory(form):
    config, model, params = made(form)
    written = make_decoder(inference_config(config))
    small = jax.jit(functools.partial(inference_params, config, weights="int8"))(params)
    for path, leaf in flatten_with_paths(small).items():
        in_layers = path.startswith("tail_") and path.endswith("/kernel") and "router" not in path
        assert (leaf.dtype == jnp.int8) == in_layers, path
    layers = count_bytes({name: part for name, part in small.items() if name.startswith("tail_")})
    assert layers < 0.4 * count_bytes(params["layers"])  # norms, router and scales are most of the rest at this width
    rough = jax.jit(written.apply_fn)(small, tokens())
    assert not np.array_equal(rough, jax.jit(model.apply_fn)(params, tokens()))
    if config.compute_dtype == "float32":  # scales on the products are scales on the kernels
        np.testing.assert_allclose(rough, jax.jit(written.apply_fn)(_dequantized(small), tokens()), atol=2e-5)


def _dequantized(tree):
    if not isinstance(tree, dict):
        return tree
    tree = {name: _dequantized(part) for name, part in tree.items()}
    scale = tree.pop(KERNEL_SCALE, None)
    return tree | ({} if scale is None else {"kernel": dequantize(tree["kernel"], scale, scale.dtype)})


def test_a_kernel_in_int8_is_within_half_a_step_of_itself(rng):
    kernel = jnp.asarray(rng.normal(size=(2, 40, 8)) * np.logspace(-3, 2, 8), jnp.float32).at[:, :, 3].set(0)
    kept = quantize_kernel(kernel)
    scale = kept[KERNEL_SCALE]
    back = dequantize(kept["kernel"], scale, jnp.dtype(jnp.float32))
    assert scale.shape == (2, 8)
    assert (jnp.abs(back - kernel) <= 0.5001 * scale[:, None]).all()
    assert int(jnp.max(jnp.abs(kept["kernel"]))) == 127
    np.testing.assert_array_equal(back[:, :, 3], 0)
