"""Splash attention: the block-sparse flash kernel for TPUs that ships with JAX, under ``shard_map`` where a mesh is
set."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu import splash_attention as splash
from jax.sharding import PartitionSpec

from jaxlm.core.axes import free_axes
from jaxlm.core.types import BATCH_AXES, Array

HEAD_AXIS = "model"
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

    Under a mesh (``jax.set_mesh``) rows are split over data, fsdp and expert, heads over model, each where it divides;
    the kernel runs on each device's share, as XLA cannot split a custom call. ``interpret`` runs it on a CPU, for
    tests.
    """
    b, t, n, _ = q_btnh.shape
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

    q_btnh = q_btnh * scale
    sizes = free_axes()
    if not sizes:
        return local(q_btnh, k_bskh, v_bskh, segment_ids_bt)[:, :t]
    batch_axes = tuple(axis for axis in BATCH_AXES if axis in sizes)
    batch_axes = batch_axes if b % math.prod(sizes[axis] for axis in batch_axes) == 0 else ()
    heads = HEAD_AXIS if k_bskh.shape[2] % sizes.get(HEAD_AXIS, 1) == 0 and HEAD_AXIS in sizes else None
    if heads is None and HEAD_AXIS in sizes and n % sizes[HEAD_AXIS] == 0:
        # Fewer key heads than devices on the axis: each query head takes its own copy, so that queries still divide.
        k_bskh, v_bskh = (jnp.repeat(x, n // x.shape[2], axis=2) for x in (k_bskh, v_bskh))
        heads = HEAD_AXIS
    spec = PartitionSpec(batch_axes or None, None, heads, None)
    row_spec = None if segment_ids_bt is None else PartitionSpec(batch_axes or None, None)
    # The kernel's replication is not something shard_map can infer through a custom call.
    sharded = jax.shard_map(
        local, in_specs=(spec, spec, spec, row_spec), out_specs=spec, axis_names=set(sizes), check_vma=False
    )
    return sharded(q_btnh, k_bskh, v_bskh, segment_ids_bt)[:, :t]
