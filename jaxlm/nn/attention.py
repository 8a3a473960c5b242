"""Scaled dot-product attention behind one function: XLA anywhere, cuDNN on NVIDIA GPUs, splash on TPUs, ours on CPUs.

``attend`` is pure and looks at no device: which implementation fits a platform is said by
``choose_implementation``, which ``run/`` calls once. ``auto`` left unresolved means ``xla``.
"""

import math
from typing import Literal, get_args

import jax
import jax.numpy as jnp

from jaxlm.core.errors import UserError
from jaxlm.core.masks import attention_mask
from jaxlm.core.types import Array
from jaxlm.nn.cpu_attention import cpu_attention
from jaxlm.nn.kernels import KernelMissing, no_kernel
from jaxlm.nn.splash import splash_attention

Implementation = Literal["auto", "xla", "cudnn", "splash", "splash_interpret", "cpu"]
IMPLEMENTATIONS: tuple[Implementation, ...] = get_args(Implementation)
"""``splash_interpret`` is the TPU kernel in Pallas's interpreter: slow, on any platform, to check it without a TPU."""

MASKED = -1e30
"""Score of a hidden key. Finite, so that a row that sees nothing (padding) averages values instead of giving NaN."""


def choose_implementation(
    implementation: Implementation,
    platform: str,
    *,
    dtype: jnp.dtype,
    head_dim: int,
    softcap: float | None,
    kernel_missing: KernelMissing = no_kernel,
) -> Implementation:
    """``auto`` -> what is fastest on ``platform`` ("cpu", "gpu", "tpu") for this model; another value is checked.

    Raises UserError where the chosen one cannot run there.
    """
    half = dtype.itemsize == 2
    if implementation == "auto":
        if platform == "tpu":
            return "splash"
        if platform == "cpu":
            fits = dtype == jnp.float32 and softcap is None
            return "cpu" if fits and kernel_missing("attention") is None else "xla"
        cudnn_fits = half and softcap is None and head_dim % 8 == 0 and head_dim <= 128
        return "cudnn" if platform in ("gpu", "cuda") and cudnn_fits else "xla"
    if implementation == "cudnn":
        check_cudnn(dtype=dtype, head_dim=head_dim, softcap=softcap)
        if platform not in ("gpu", "cuda"):
            raise UserError(f"model.attention=cudnn needs an NVIDIA GPU, this is {platform}: use auto or xla")
    if implementation == "cpu":
        if platform != "cpu" or dtype != jnp.float32 or softcap is not None:
            raise UserError(
                f"model.attention=cpu is for CPUs, float32 and no attn_softcap; this is {platform}, {dtype} and "
                f"{softcap}: use auto or xla"
            )
        if reason := kernel_missing("attention"):
            raise UserError(f"model.attention=cpu cannot be had here, {reason}: use auto or xla")
    if implementation == "splash" and platform != "tpu":
        raise UserError(f"model.attention=splash needs a TPU, this is {platform}: use auto or xla")
    return implementation


def check_cudnn(*, dtype: jnp.dtype, head_dim: int, softcap: float | None) -> None:
    """Raise UserError for what cuDNN's flash attention does not compute."""
    if dtype.itemsize != 2:
        raise UserError(f"model.attention=cudnn needs 16-bit compute, not {dtype}: set model.compute_dtype=bfloat16")
    if softcap is not None:
        raise UserError(f"model.attention=cudnn has no soft cap, attn_softcap={softcap}: use xla or attn_softcap=None")
    if head_dim % 8:
        raise UserError(f"model.attention=cudnn needs a head width that 8 divides, not {head_dim}: use xla")


def static_mask(t: int, *, causal: bool, window: int | None) -> Array | None:
    """The mask of rows that all hold one whole sequence, [1, t, t], or None where everyone sees everyone."""
    if not causal and (window is None or window >= t):
        return None
    positions = jnp.arange(t, dtype=jnp.int32)[None]
    return attention_mask(positions, positions, causal=causal, window=window)


def attend(
    q_btnh: Array,
    k_bskh: Array,
    v_bskh: Array,
    *,
    q_positions: Array | None = None,
    k_positions: Array | None = None,
    q_segment_ids: Array | None = None,
    k_segment_ids: Array | None = None,
    mask_bts: Array | None = None,
    causal: bool = True,
    window: int | None = None,
    softcap: float | None = None,
    scale: float | None = None,
    implementation: Implementation = "xla",
) -> Array:
    """``softmax(mask(cap(scale q k^T))) v``, [b, t, n, v's width] in q's dtype; ``cap(x) = c tanh(x / c)``; softmax in
    f32.

    n is a multiple of k: queries in groups of n / k share a key head (GQA, Ainslie et al. 2023; MQA at k = 1), which is
    never repeated in memory. scale None = 1/sqrt(h). Who sees whom is ``core.masks.attention_mask`` over positions
    (None = 0, 1, 2...) and segments (None = one, unpadded). ``mask_bts`` is that mask made before (once for all
    layers of a window): then the xla form reads nothing else.

    cudnn, splash and cpu are for whole rows (s = t): they take order from the index, which equals order by position
    because a packed segment is contiguous. Against a cache, and wherever s is not t, xla serves.
    """
    scale = 1.0 / math.sqrt(q_btnh.shape[-1]) if scale is None else scale
    t, s = q_btnh.shape[1], k_bskh.shape[1]
    if (
        implementation in ("splash", "splash_interpret", "cudnn", "cpu")
        and s == t
        and v_bskh.shape[-1] != q_btnh.shape[-1]
    ):
        # The kernels know one width: what is narrower (latent attention) is padded with zeros, which change no score,
        # and what values gained by it is cut off again.
        width = max(q_btnh.shape[-1], v_bskh.shape[-1])
        out_btnh = attend(
            *(jnp.pad(x, (*((0, 0),) * 3, (0, width - x.shape[-1]))) for x in (q_btnh, k_bskh, v_bskh)),
            q_positions=q_positions,
            k_positions=k_positions,
            q_segment_ids=q_segment_ids,
            k_segment_ids=k_segment_ids,
            mask_bts=mask_bts,
            causal=causal,
            window=window,
            softcap=softcap,
            scale=scale,
            implementation=implementation,
        )
        return out_btnh[..., : v_bskh.shape[-1]]
    if implementation in ("splash", "splash_interpret") and s == t:
        return splash_attention(
            q_btnh,
            k_bskh,
            v_bskh,
            q_segment_ids,
            causal=causal,
            window=window,
            softcap=softcap,
            scale=scale,
            interpret=implementation == "splash_interpret",
        )
    if implementation == "cpu" and s == t:
        return cpu_attention(q_btnh, k_bskh, v_bskh, q_segment_ids, causal=causal, window=window, scale=scale)
    if mask_bts is None:
        if q_positions is None and k_positions is None and q_segment_ids is None and s == t:
            mask_bts = static_mask(t, causal=causal, window=window)
        else:
            q_positions = jnp.arange(t, dtype=jnp.int32)[None] if q_positions is None else q_positions
            k_positions = jnp.arange(s, dtype=jnp.int32)[None] if k_positions is None else k_positions
            mask_bts = attention_mask(
                q_positions, k_positions, q_segment_ids, k_segment_ids, causal=causal, window=window
            )
    if implementation == "cudnn" and s == t:
        check_cudnn(dtype=q_btnh.dtype, head_dim=q_btnh.shape[-1], softcap=softcap)
        plain = q_segment_ids is None and q_positions is None and causal
        return jax.nn.dot_product_attention(
            q_btnh,
            k_bskh,
            v_bskh,
            mask=None if plain or mask_bts is None else mask_bts[:, None],
            scale=scale,
            is_causal=plain,
            local_window_size=(window - 1, 0) if plain and window is not None else None,
            implementation="cudnn",
        )
    return xla_attention(q_btnh, k_bskh, v_bskh, mask_bts, softcap=softcap, scale=scale)


def xla_attention(
    q_btnh: Array, k_bskh: Array, v_bskh: Array, mask_bts: Array | None, *, softcap: float | None, scale: float
) -> Array:
    """Attention as two batched products; scores and softmax in f32.

    Heads are brought before time first: on a CPU, products over the [b, t, n, h] layout copy every operand head by
    head, a third of attention's time forward and backward.
    """
    b, t, n, h = q_btnh.shape
    num_kv_heads = k_bskh.shape[2]
    q_bkgth = (q_btnh * scale).reshape(b, t, num_kv_heads, n // num_kv_heads, h).transpose(0, 2, 3, 1, 4)
    k_bksh, v_bksh = k_bskh.transpose(0, 2, 1, 3), v_bskh.transpose(0, 2, 1, 3)
    scores_bkgts = jnp.einsum("bkgth,bksh->bkgts", q_bkgth, k_bksh, preferred_element_type=jnp.float32)
    if softcap is not None:
        scores_bkgts = softcap * jnp.tanh(scores_bkgts / softcap)
    if mask_bts is not None:
        scores_bkgts = jnp.where(mask_bts[:, None, None], scores_bkgts, MASKED)
    weights_bkgts = jax.nn.softmax(scores_bkgts, axis=-1).astype(v_bskh.dtype)
    out_bkgth = jnp.einsum("bkgts,bksh->bkgth", weights_bkgts, v_bksh)
    return out_bkgth.transpose(0, 3, 1, 2, 4).reshape(b, t, n, v_bskh.shape[-1])
