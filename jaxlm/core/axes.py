"""The axes of the mesh that is set while a function is traced."""

from typing import Literal

import jax
from jax.sharding import AxisType

from jaxlm.core.types import BATCH_AXES, STAGE_AXIS

ContextAttention = Literal["auto", "ring", "all_to_all"]
"""How attention crosses the axis ``context``; auto = all_to_all where the heads divide over it, else ring."""


def free_axes() -> dict[str, int]:
    """Axis -> size, for the axes that XLA still places: none without a mesh, nor those that a ``shard_map`` around this
    code has taken (there each device sees its own share already)."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return {}
    kinds = zip(mesh.axis_names, mesh.axis_sizes, mesh.axis_types, strict=True)
    return {name: size for name, size, kind in kinds if kind == AxisType.Auto}


def taken_axes() -> tuple[str, ...]:
    """The axes that a ``shard_map`` around this code has taken; none without one."""
    mesh = jax.sharding.get_abstract_mesh()
    return () if mesh.empty else mesh.manual_axes


def taken_row_axes() -> tuple[str, ...]:
    """Of the axes that are taken, those whose devices each see some rows of one microbatch: what is a statistic of the
    microbatch is summed over them."""
    return tuple(axis for axis in taken_axes() if axis in BATCH_AXES and axis != STAGE_AXIS)
