"""How a model's activations lie on a mesh, and how its attention crosses it: said once, and given to the model."""

import dataclasses

from jax.sharding import PartitionSpec as P

from jaxlm.core.axes import ContextAttention
from jaxlm.core.types import BATCH_AXES, CONTEXT_AXIS, Array
from jaxlm.sharding.constrain import constrain

HIDDEN_SPEC = P(BATCH_AXES, CONTEXT_AXIS, None)
"""Hidden states [b, t, d] as products read them."""

SPLIT_SPEC = P(BATCH_AXES, (CONTEXT_AXIS, "model"), None)
"""The same, their positions split over ``model`` as well."""


@dataclasses.dataclass(frozen=True)
class ActivationLayout:
    """What a model does on a mesh beside placing its parameters. On one device all layouts are the same program."""

    context_attention: ContextAttention = "auto"
    """How attention crosses the axis ``context`` (`nn.context_attention`)."""
    sequence_parallel: bool = False
    """Between products the stream is split by position over ``model`` too (Korthikanti et al. 2022)."""

    def between(self, x_btd: Array) -> Array:
        """The stream as it lies between layers."""
        return constrain(x_btd, SPLIT_SPEC if self.sequence_parallel else HIDDEN_SPEC)

    def gathered(self, normed_btd: Array) -> Array:
        """What a norm gives, as the products after it read it: each device of ``model`` has all its positions."""
        return constrain(normed_btd, HIDDEN_SPEC) if self.sequence_parallel else normed_btd

    def scattered(self, out_btd: Array) -> Array:
        """What products add to the stream, summed over ``model`` into the shares of `between`."""
        return constrain(out_btd, SPLIT_SPEC) if self.sequence_parallel else out_btd


DEFAULT_LAYOUT = ActivationLayout()
