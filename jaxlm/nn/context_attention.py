"""Attention of rows whose positions are split over the mesh axis ``context``.

``all_to_all`` (Ulysses, Jacobs et al. 2023): devices exchange positions for heads, so that each attends over whole rows
with a part of the heads, by whatever kernel serves one device. ``ring`` (Liu et al. 2023, `nn.ring_attention`): heads
stay, and keys and values are passed round. Both are exact: packed rows, windows and soft caps included.
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from jaxlm.core.axes import ContextAttention, free_axes
from jaxlm.core.types import BATCH_AXES, CONTEXT_AXIS, Array
from jaxlm.nn.attention import Implementation, attend
from jaxlm.nn.ring_attention import RingOptions, ring_attention
from jaxlm.nn.split_heads import HEAD_AXIS


def repeated_heads(x_bskh: Array, ways: int) -> Array:
    """Key or value heads, each repeated as often as it takes for ``ways`` to divide their number."""
    times = ways // math.gcd(x_bskh.shape[2], ways)
    return x_bskh if times == 1 else jnp.repeat(x_bskh, times, axis=2)


def exchanges(context_attention: ContextAttention, heads: int, ways: int) -> bool:
    """Whether devices exchange positions for ``heads``, those that a device of ``model`` has, over ``ways`` of
    ``context``; else keys and values go round."""
    return context_attention != "ring" and heads % ways == 0


def attend_rows(
    q_btnh: Array,
    k_btkh: Array,
    v_btkh: Array,
    *,
    q_positions: Array | None,
    q_segment_ids: Array | None,
    mask_bts: Array | None,
    causal: bool = True,
    window: int | None = None,
    softcap: float | None = None,
    scale: float | None = None,
    implementation: Implementation = "xla",
    context_attention: ContextAttention = "auto",
) -> Array:
    """`attention.attend` of whole rows with themselves, which also serves where the mesh splits their positions.

    ``auto`` is ``all_to_all`` where the query heads that a device of ``model`` has divide over ``context``, else
    ``ring``; so is ``all_to_all`` itself. Key heads too few for the axes are repeated. Raises nothing: rows that do not
    divide over the axis lie whole, and XLA places the work.
    """
    sizes = free_axes()
    ways = sizes.get(CONTEXT_AXIS, 1)
    (b, t, n, _), kernels = q_btnh.shape, {"causal": causal, "window": window, "softcap": softcap, "scale": scale}
    if ways == 1 or t % ways:
        masks: dict[str, Any] = {"q_positions": q_positions, "q_segment_ids": q_segment_ids, "mask_bts": mask_bts}
        return attend(q_btnh, k_btkh, v_btkh, **masks, **kernels, implementation=implementation)
    head_ways = sizes.get(HEAD_AXIS, 1) if n % sizes.get(HEAD_AXIS, 1) == 0 else 1
    exchange = exchanges(context_attention, n // head_ways, ways)
    k_btkh, v_btkh = (repeated_heads(x, head_ways * ways if exchange else head_ways) for x in (k_btkh, v_btkh))
    batch_axes = tuple(axis for axis in BATCH_AXES if axis in sizes)
    batch_axes = batch_axes if b % math.prod(sizes[axis] for axis in batch_axes) == 0 else ()
    rows, heads = batch_axes or None, HEAD_AXIS if head_ways > 1 else None
    spec = P(rows, CONTEXT_AXIS, heads, None)
    if exchange:
        local, order = functools.partial(_exchanged, **kernels, implementation=implementation), None
    else:
        scale = 1.0 / math.sqrt(q_btnh.shape[-1]) if scale is None else scale
        local = functools.partial(
            ring_attention, options=RingOptions(CONTEXT_AXIS, ways, causal, window, softcap, scale)
        )
        order = CONTEXT_AXIS
        if q_positions is None:
            q_positions = jnp.broadcast_to(jnp.arange(t, dtype=jnp.int32), (b, t))
    row_specs = [None if x is None else P(rows, order) for x in (q_positions, q_segment_ids)]
    sharded = jax.shard_map(
        local,
        in_specs=(spec, spec, spec, *row_specs),
        out_specs=spec,
        axis_names=set(sizes),
        check_vma=False,  # what a kernel inside replicates cannot be inferred
    )
    return sharded(q_btnh, k_btkh, v_btkh, q_positions, q_segment_ids)


def _exchanged(
    q_btnh: Array, k_btkh: Array, v_btkh: Array, positions: Array | None, segment_ids: Array | None, **options: Any
) -> Array:
    """On one device: its positions of all heads become all positions of its heads, and back. ``positions`` and
    ``segment_ids`` are those of the whole rows."""
    swap = functools.partial(jax.lax.all_to_all, axis_name=CONTEXT_AXIS, tiled=True)
    q_btnh, k_btkh, v_btkh = (swap(x, split_axis=2, concat_axis=1) for x in (q_btnh, k_btkh, v_btkh))
    out_btnh = attend(
        q_btnh,
        k_btkh,
        v_btkh,
        q_positions=positions,
        k_positions=positions,
        q_segment_ids=segment_ids,
        k_segment_ids=segment_ids,
        **options,
    )
    return swap(out_btnh, split_axis=1, concat_axis=2)
