"""How a model's activations lie on a mesh, and how its attention crosses it: said once, and given to the model."""

import dataclasses

import jax
from jax.sharding import PartitionSpec as P

from jaxlm.core.axes import ContextAttention, free_axes
from jaxlm.core.types import BATCH_AXES, CONTEXT_AXIS, Array
from jaxlm.sharding.constrain import constrain, fitting_spec
from jaxlm.sharding.pipeline import PipelineConfig

MODEL_AXIS = "model"
HIDDEN_SPEC = P(BATCH_AXES, CONTEXT_AXIS, None)
"""Hidden states [b, t, d] as products read them."""

SPLIT_SPEC = P(BATCH_AXES, (CONTEXT_AXIS, MODEL_AXIS), None)
"""The same, their positions split over ``model`` as well."""


def _gather(x_btd: Array) -> Array:
    """From `SPLIT_SPEC` to `HIDDEN_SPEC`, by a collective that is written out: left to place it, XLA makes it part of
    the products around, and takes their kernels apart."""
    sizes = free_axes()
    if not sizes:
        return x_btd
    split, whole = (fitting_spec(spec, x_btd.shape, sizes) for spec in (SPLIT_SPEC, HIDDEN_SPEC))
    if split == whole or MODEL_AXIS not in (split[1] or ()):
        return constrain(x_btd, HIDDEN_SPEC)

    def local(x_btd: Array) -> Array:
        return jax.lax.all_gather(x_btd, MODEL_AXIS, axis=1, tiled=True)

    # What is gathered is the same on all devices of the axis, which shard_map does not know of itself.
    return jax.shard_map(local, in_specs=split, out_specs=whole, axis_names=set(sizes), check_vma=False)(x_btd)


@jax.custom_vjp
def gather_positions(x_btd: Array) -> Array:
    """Each device of ``model`` gets all positions of its rows; its gradient is summed into shares by position."""
    return _gather(x_btd)


gather_positions.defvjp(lambda x: (_gather(x), None), lambda _, grad: (constrain(grad, SPLIT_SPEC),))


@jax.custom_vjp
def scatter_positions(x_btd: Array) -> Array:
    """What a product has summed over ``model`` goes to shares by position; its gradient is gathered from them."""
    return constrain(x_btd, SPLIT_SPEC)


scatter_positions.defvjp(lambda x: (constrain(x, SPLIT_SPEC), None), lambda _, grad: (_gather(grad),))


@dataclasses.dataclass(frozen=True)
class ActivationLayout:
    """What a model does on a mesh beside placing its parameters. On one device all layouts are the same program."""

    context_attention: ContextAttention = "auto"
    """How attention crosses the axis ``context`` (`nn.context_attention`)."""
    sequence_parallel: bool = False
    """Between products the stream is split by position over ``model`` too (Korthikanti et al. 2022)."""
    pipeline: PipelineConfig | None = None
    """How stages share the work (`sharding.pipeline`); None = every device runs all layers, gathered as needed."""

    def between(self, x_btd: Array) -> Array:
        """The stream as it lies between layers."""
        return constrain(x_btd, SPLIT_SPEC if self.sequence_parallel else HIDDEN_SPEC)

    def gathered(self, normed_btd: Array) -> Array:
        """What a norm gives, as the products after it read it: each device of ``model`` has all its positions."""
        return gather_positions(normed_btd) if self.sequence_parallel else normed_btd

    def scattered(self, out_btd: Array) -> Array:
        """What products add to the stream, summed over ``model`` into the shares of `between`."""
        return scatter_positions(out_btd) if self.sequence_parallel else out_btd


DEFAULT_LAYOUT = ActivationLayout()
