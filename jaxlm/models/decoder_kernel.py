"""A decoder, laid out for the kernel that decodes one row (`nn.triton_decode`): Llama's form alone."""

from typing import Any

import jax.numpy as jnp

from jaxlm.core.dtypes import as_dtype
from jaxlm.core.types import Array, Params
from jaxlm.models.decoder_config import DecoderConfig
from jaxlm.nn.triton_decode import DecodeKernel, KernelWeights
from jaxlm.nn.triton_matvec import halves, pack, pack_lines, unpack, unpack_lines, whole

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
    "embed_scale": False,
    "logit_softcap": None,
}
"""Fields of a decoder's config that change what it computes, and the one value of each that the kernel has."""
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
    assert config.vocab_size is not None
    return DecodeKernel(
        config.vocab_size,
        config.num_heads,
        config.kv_heads,
        config.head_width,
        config.norm_eps,
        config.attn_scale,
        dtype,
        jnp.dtype(as_dtype(config.logits_dtype)),
        interpret=interpret,
        **cut,
    )


def kernel_weights(config: DecoderConfig, params: Params) -> KernelWeights:
    """Of ``inference_params(config, ...)``. Raises ValueError where maps are more than a kernel in the compute dtype:
    in int8, with biases or adapters."""
    dtype = as_dtype(config.compute_dtype)
    packed = 4 // dtype.itemsize
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
        return halves(jnp.stack([layer[name]["scale"] for layer in layers]).astype(jnp.float32), packed)

    qkv, out, up_gate, down = map(kernels, _MAPS)
    return KernelWeights(
        gains("attn_norm"),
        qkv,
        out,
        gains("mlp_norm"),
        up_gate,
        down,
        halves(params["final_norm"]["scale"].astype(jnp.float32), packed),
        pack_lines(params["embed"]["table"]),
        None if config.tie_embeddings else pack(params["head"]["kernel"]),
    )


def params_of_kernel(config: DecoderConfig, weights: KernelWeights) -> Params:
    """What :func:`kernel_weights` was given, for XLA beside the kernel. Gains are in the dtype of parameters."""
    dtype, gain_dtype = as_dtype(config.compute_dtype), as_dtype(config.param_dtype)
    packed = 4 // dtype.itemsize

    def gain(halved: Array) -> Params:
        return {"scale": whole(halved, packed).astype(gain_dtype)}

    def layer(i: int) -> Params:
        maps = (weights.qkv_lod, weights.out_ldo, weights.up_gate_lfd, weights.down_ldf)
        out: Params = {"attn_norm": gain(weights.attn_norm_ld[i]), "mlp_norm": gain(weights.mlp_norm_ld[i])}
        for path, stacked in zip(_MAPS, maps, strict=True):
            block, name = path.split("/")
            out.setdefault(block, {})[name] = {"kernel": unpack(stacked[i], dtype)}
        return out

    params: Params = {f"tail_{i}": layer(i) for i in range(config.num_layers)}
    params |= {"final_norm": gain(weights.final_norm_d), "embed": {"table": unpack_lines(weights.table_vd, dtype)}}
    return params if weights.head_vd is None else params | {"head": {"kernel": unpack(weights.head_vd, dtype)}}


def stack_cache(config: DecoderConfig, layers: Params) -> tuple[Array, Array]:
    """Keys and values [l, k, s, h] of one row, from those of each layer (`models.api.KVCache`)."""
    keys, values = (jnp.stack([layers[f"tail_{i}"][name] for i in range(config.num_layers)]) for name in ("k", "v"))
    return keys, values


def unstack_cache(cache: tuple[Array, Array]) -> Params:
    """What :func:`stack_cache` was given."""
    return {f"tail_{i}": {"k": k, "v": v} for i, (k, v) in enumerate(zip(*cache, strict=True))}
