"""A kernel over attention's heads on each device of a mesh: XLA cannot split a custom call by itself."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from jaxlm.core.axes import free_axes
from jaxlm.core.types import BATCH_AXES, Array

HEAD_AXIS = "model"

HeadsKernel = Callable[[Array, Array, Array, Array | None], Array]
"""``(q_btnh, k_bskh, v_bskh, segment_ids_bt) -> out_btnh``."""


def on_each_device(
    kernel: HeadsKernel, q_btnh: Array, k_bskh: Array, v_bskh: Array, segment_ids_bt: Array | None
) -> Array:
    """Under a mesh (``jax.set_mesh``) rows are split over data, fsdp and expert, heads over model, each where it
    divides; the kernel runs on each device's share. Without one it runs as it is."""
    sizes, (b, _, n, _) = free_axes(), q_btnh.shape
    if not sizes:
        return kernel(q_btnh, k_bskh, v_bskh, segment_ids_bt)
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
        kernel, in_specs=(spec, spec, spec, row_spec), out_specs=spec, axis_names=set(sizes), check_vma=False
    )
    return sharded(q_btnh, k_bskh, v_bskh, segment_ids_bt)
