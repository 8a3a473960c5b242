"""Splash attention: the block-sparse flash kernel for TPUs that ships with JAX, under ``shard_map`` where a mesh is
set."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu import splash_attention as splash

from jaxlm.core.types import Array
from jaxlm.nn.split_heads import on_each_device

LANES = 128
"""The kernel's tiles are multiples of this: shorter rows are padded to it."""


def _block_sizes(t: int) -> splash.BlockSizes:
    """Tiles of 512 where the row divides so, else 256, else 128."""
    block = next(size for size in (512, 256, LANES) if t % size == 0)
    return splash.BlockSizes(
        block_q=block,
        block_kv=block,
        block_kv_compute=block,
        block_q_dkv=block,
        block_kv_dkv=block,
        block_kv_dkv_compute=block,
        block_q_dq=block,
        block_kv_dq=block,
    )


def _mask(t: int, *, causal: bool, window: int | None) -> splash.Mask:
    """The static mask of one head; the kernel skips tiles that it hides whole."""
    if window is not None and window < t:
        return splash.LocalMask((t, t), (window - 1, 0 if causal else window - 1), 0)
    return splash.CausalMask((t, t)) if causal else splash.FullMask((t, t))


def _local(
    q_btnh: Array,
    k_bskh: Array,
    v_bskh: Array,
    segment_ids_bt: Array | None,
    *,
    causal: bool,
    window: int | None,
    softcap: float | None,
    interpret: bool,
) -> Array:
    """The kernel on what one device holds."""
    t, n = q_btnh.shape[1:3]
    kernel = splash.make_splash_mha(
        splash.MultiHeadMask([_mask(t, causal=causal, window=window)] * n),
        block_sizes=_block_sizes(t),
        head_shards=1,
        q_seq_shards=1,
        attn_logits_soft_cap=softcap,
        interpret=interpret,
    )
    q_bnth, k_bkth, v_bkth = (x.swapaxes(1, 2) for x in (q_btnh, k_bskh, v_bskh))
    if segment_ids_bt is None:
        out_bnth: Any = jax.vmap(kernel)(q_bnth, k_bkth, v_bkth)
    else:
        out_bnth = jax.vmap(kernel)(q_bnth, k_bkth, v_bkth, splash.SegmentIds(segment_ids_bt, segment_ids_bt))
    return out_bnth.swapaxes(1, 2)


def splash_attention(
    q_btnh: Array,
    k_bskh: Array,
    v_bskh: Array,
    segment_ids_bt: Array | None,
    *,
    causal: bool,
    window: int | None,
    softcap: float | None,
    scale: float,
    interpret: bool = False,
) -> Array:
    """Attention of whole rows (s = t), [b, t, n, h]. Padding (segment 0) attends to padding: finite, and read by no
    one.

    ``interpret`` runs it on a CPU, for tests.
    """
    b, t = q_btnh.shape[:2]
    padding = -t % LANES
    if padding:
        if not causal and segment_ids_bt is None:
            segment_ids_bt = jnp.ones((b, t), jnp.int32)
        pad = ((0, 0), (0, padding), (0, 0), (0, 0))
        q_btnh, k_bskh, v_bskh = (jnp.pad(x, pad) for x in (q_btnh, k_bskh, v_bskh))
        if segment_ids_bt is not None:
            segment_ids_bt = jnp.pad(segment_ids_bt, ((0, 0), (0, padding)))

    def local(q: Array, k: Array, v: Array, segments: Array | None) -> Array:
        return _local(q, k, v, segments, causal=causal, window=window, softcap=softcap, interpret=interpret)

    return on_each_device(local, q_btnh * scale, k_bskh, v_bskh, segment_ids_bt)[:, :t]
