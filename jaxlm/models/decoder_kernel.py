"""A decoder, laid out for the kernel that runs all its layers in one (`nn.triton_decode`): Llama's form alone."""

from typing import Any

import jax.numpy as jnp

from jaxlm.core.dtypes import as_dtype
from jaxlm.core.types import Array, Params
from jaxlm.models.decoder_config import DecoderConfig
from jaxlm.nn.triton_decode import DecodeKernel, LayerWeights
from jaxlm.nn.triton_matvec import halves, pack

COVERED: dict[str, Any] = {
    "moe": None,
    "mla": None,
    "mlp": "swiglu",
    "norm": "rmsnorm",
    "norm_scale": True,
    "norm_offset": False,
    "output_norms": False,
    "bias": False,
    "qk_norm": False,
    "position": "rope",
    "attn_softcap": None,
    "parallel_block": False,
    "base_dim": None,
}
"""Fields of a decoder's config that change its layers, and the one value of each that the kernel computes."""
_MAPS = ("attn/q+k+v", "attn/o", "mlp/up+gate", "mlp/down")


def decode_kernel(config: DecoderConfig, *, interpret: bool = False, **cut: Any) -> DecodeKernel:
    """The kernel of ``config``; ``cut``: fields of `DecodeKernel` that are no part of the model. Raises ValueError for
    a decoder that it does not compute."""
    for name, covered in COVERED.items():
        if (value := getattr(config, name)) != covered:
            raise ValueError(f"model.{name}={value!r} is not in the decoding kernel, which has {covered!r} alone")
    if any(window is not None for window in config.window_pattern):
        raise ValueError(f"model.window_pattern={config.window_pattern}: the decoding kernel has no windows")
    dtype = jnp.dtype(as_dtype(config.compute_dtype))
    sizes = {"model_dim": config.model_dim, "mlp_dim": config.mlp_width, "heads": config.num_heads * config.head_width}
    for name, size in sizes.items():
        if dtype.itemsize == 2 and size % 2:
            raise ValueError(f"{name}={size} is odd: the decoding kernel reads 16-bit weights in pairs")
    return DecodeKernel(
        config.num_heads,
        config.kv_heads,
        config.head_width,
        config.norm_eps,
        config.attn_scale,
        dtype,
        interpret=interpret,
        **cut,
    )


def layer_weights(config: DecoderConfig, params: Params) -> LayerWeights:
    """Of ``inference_params(config, ...)``. Raises ValueError where maps are more than a kernel in the compute dtype:
    in int8, with biases or adapters."""
    dtype = as_dtype(config.compute_dtype)
    layers = [params[f"tail_{i}"] for i in range(config.num_layers)]

    def kernels(path: str) -> Array:
        block, name = path.split("/")
        found = [layer[block].get(name, {}) for layer in layers]
        for i, part in enumerate(found):
            kernel = part.get("kernel")
            if set(part) != {"kernel"} or kernel is None or kernel.dtype != dtype:
                kept = {key: f"{value.dtype}" for key, value in part.items()}
                raise ValueError(f"layer {i} keeps {path} as {kept}: the decoding kernel wants one kernel in {dtype}")
        return pack(jnp.stack([part["kernel"] for part in found]))

    def gains(name: str) -> Array:
        return halves(jnp.stack([layer[name]["scale"] for layer in layers]).astype(jnp.float32), 4 // dtype.itemsize)

    qkv, out, up_gate, down = map(kernels, _MAPS)
    return LayerWeights(gains("attn_norm"), qkv, out, gains("mlp_norm"), up_gate, down)


def stack_cache(config: DecoderConfig, layers: Params) -> tuple[Array, Array]:
    """Keys and values [l, k, s, h] of one row, from those of each layer (`models.api.KVCache`)."""
    keys, values = (jnp.stack([layers[f"tail_{i}"][name] for i in range(config.num_layers)]) for name in ("k", "v"))
    return keys, values
