"""The mesh: devices in six axes. data: copies of the state; stage: layers in turn; fsdp: copies that split the state;
expert: split experts; context: split rows; model: split layers."""

import contextlib
import dataclasses
import math
from collections.abc import Sequence
from typing import Any, get_args

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, PartitionSpec

from jaxlm.core.axes import ContextAttention
from jaxlm.core.errors import UserError
from jaxlm.core.types import BATCH_AXES, CONTEXT_AXIS
from jaxlm.sharding.activations import ActivationLayout
from jaxlm.sharding.pipeline import PipelineConfig

AXES = ("data", "stage", "fsdp", "expert", "context", "model")
"""From the outermost, whose neighbours may be far apart, to the innermost, which talks most."""


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """Devices along each axis; their product is the number of devices."""

    data: int | None = None
    """Splits the batch; None = the devices that the other axes leave."""
    stage: int = 1
    """Splits the layers into stages that pass microbatches on, and the rows outside of the layers (pipeline)."""
    fsdp: int = 1
    """Splits the batch, and parameters and optimiser state with it, gathered layer by layer (ZeRO-3)."""
    expert: int = 1
    """Splits the batch, and the experts of a mixture; all else is copied over it."""
    context: int = 1
    """Splits the positions of each row, and parameters and optimiser state with them, as fsdp does."""
    model: int = 1
    """Splits heads, MLP and vocabulary (Megatron)."""
    context_attention: ContextAttention = "auto"
    """How attention crosses context: all_to_all (whole rows of fewer heads), ring (keys and values go round); auto =
    all_to_all where heads divide over model * context."""
    sequence_parallel: bool = False
    """Between products the hidden states are split by position over model too: less memory, the same traffic."""
    pipeline: PipelineConfig = dataclasses.field(default_factory=PipelineConfig)
    """Microbatches and rounds of the stages."""

    def __post_init__(self) -> None:
        for axis in AXES:
            size = getattr(self, axis)
            if size is not None and size < 1:
                raise ValueError(f"mesh.{axis}={size} must be at least 1")
        choices = get_args(ContextAttention)
        if self.context_attention not in choices:
            raise ValueError(
                f"mesh.context_attention={self.context_attention!r} is unknown: choose {', '.join(choices)}"
            )

    @property
    def activations(self) -> ActivationLayout:
        """What the model must know of the mesh when it is made."""
        return ActivationLayout(self.context_attention, self.sequence_parallel, self.pipeline)

    def check_positions(self, seq_len: int, name: str) -> None:
        """Raises ValueError where rows of ``seq_len`` positions (``name`` in the config) do not divide over the axes
        that split them."""
        axes = ("context", "model") if self.sequence_parallel else ("context",)
        ways = math.prod(getattr(self, axis) for axis in axes)
        if seq_len % ways:
            asked = " * ".join(f"mesh.{axis}={getattr(self, axis)}" for axis in axes)
            why = " with mesh.sequence_parallel" if self.sequence_parallel else ""
            raise ValueError(
                f"{name}={seq_len} does not divide over {asked}{why}: make it a multiple of {ways}, or change the mesh"
            )

    def axis_sizes(self, num_devices: int) -> dict[str, int]:
        """Axis -> size, in the order of ``AXES``. Raises UserError where they do not multiply to the devices."""
        rest = math.prod(getattr(self, axis) for axis in AXES if axis != "data")
        data = num_devices // rest if self.data is None else self.data
        if data * rest != num_devices:
            asked = " x ".join(f"mesh.{axis}={getattr(self, axis)}" for axis in AXES if getattr(self, axis) != 1)
            need = f"a multiple of {rest}" if self.data is None else f"{data * rest}"
            raise UserError(
                f"{asked} needs {need} devices and there are {num_devices}: "
                "change an axis, or leave mesh.data=None to take what is left"
            )
        return {"data": data} | {axis: getattr(self, axis) for axis in AXES if axis != "data"}


def make_mesh(config: MeshConfig, devices: Sequence[Any]) -> Mesh:
    """A mesh over ``devices`` with Auto axes: XLA places what the rules and constraints leave open.

    On accelerators inner axes are near neighbours; several slices of TPUs lie along ``data``, outermost, and so do
    hosts of GPUs where they divide it. Raises UserError where there are more slices of TPUs than copies.
    """
    sizes = config.axis_sizes(len(devices))
    shape = tuple(sizes[axis] for axis in AXES)
    axis_types = (AxisType.Auto,) * len(AXES)
    if devices[0].platform == "cpu":
        return Mesh(np.asarray(devices).reshape(shape), AXES, axis_types=axis_types)
    slices = len({getattr(device, "slice_index", None) for device in devices})
    if slices == 1:
        with contextlib.suppress(NotImplementedError):  # an axis that is no product of the torus's own sides
            return jax.make_mesh(shape, AXES, axis_types=axis_types, devices=list(devices))
        arranged = mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
        return Mesh(arranged, AXES, axis_types=axis_types)
    if sizes["data"] % slices:
        if devices[0].platform != "tpu":  # hosts of GPUs, each a slice to XLA: any axis may span them, inner ones last
            in_order = sorted(devices, key=lambda device: (device.slice_index, device.id))
            return Mesh(np.asarray(in_order).reshape(shape), AXES, axis_types=axis_types)
        raise UserError(
            f"mesh.data={sizes['data']} is not a multiple of the {slices} slices of the devices: only copies of the "
            "state may lie on different slices"
        )
    inner, outer = (shape[0] // slices, *shape[1:]), (slices, *(1,) * (len(AXES) - 1))
    arranged = mesh_utils.create_hybrid_device_mesh(inner, outer, devices, allow_split_physical_axes=True)
    return Mesh(arranged, AXES, axis_types=axis_types)


def batch_spec(ndim: int = 2) -> PartitionSpec:
    """How an array of a batch lies: rows over stage, data, fsdp and expert, the positions of each (where there are)
    over context."""
    return PartitionSpec(*(BATCH_AXES, CONTEXT_AXIS)[:ndim])


def batch_ways(mesh: Mesh) -> int:
    """Into how many parts the rows of a batch are split; a batch size must be a multiple of it."""
    return math.prod(mesh.shape[axis] for axis in BATCH_AXES)
