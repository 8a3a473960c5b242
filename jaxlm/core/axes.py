"""The axes of the mesh that is set while a function is traced."""

from typing import Literal

import jax
from jax.sharding import AxisType

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
