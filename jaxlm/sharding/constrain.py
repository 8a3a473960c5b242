"""Where activations should lie, said inside a model and heard only under a mesh."""

import math

import jax
from jax.sharding import PartitionSpec

from jaxlm.core.axes import free_axes
from jaxlm.core.types import Array


def fitting_spec(spec: PartitionSpec, shape: tuple[int, ...], axis_sizes: dict[str, int]) -> PartitionSpec:
    """``spec`` without axes that the mesh lacks and without those that do not divide their dimension."""
    entries = []
    for entry, size in zip(spec, shape, strict=False):
        axes = (entry,) if isinstance(entry, str) else tuple(entry or ())
        axes = tuple(axis for axis in axes if axis_sizes.get(axis, 1) > 1)
        divides = size % math.prod(axis_sizes[axis] for axis in axes) == 0
        entries.append(axes if axes and divides else None)
    return PartitionSpec(*entries)


def constrain(x: Array, spec: PartitionSpec) -> Array:
    """``x`` laid out as ``spec`` under the mesh of ``jax.set_mesh``; ``x`` itself without one, or on one device.

    Axes that do not divide their dimension (one prompt on eight devices, two key heads on a model axis of four) are
    dropped: a hint must never make a model fail.
    """
    axis_sizes = free_axes()
    return jax.lax.with_sharding_constraint(x, fitting_spec(spec, x.shape, axis_sizes)) if axis_sizes else x
